"""The names of the files in a run folder that others read."""

CONFIG, LOCK, STOP = "config.yaml", ".lock", ".stop"  # the last: tells a sweep to start no further run
STATUS, METRICS, AUDIT = "status.json", "metrics.json", "audit.json"
# Of test images, of validation images, and of test images of the other hospitals where one is held out.
PREDICTIONS, VAL_PREDICTIONS, INSIDE_PREDICTIONS = "predictions.csv", "val_predictions.csv", "inside_predictions.csv"
# In a sweep's folder: the precision of its runs; the trials of a search; what its recipes are worth, and comparisons.
SWEEP, SEARCH, COMPARISONS = "sweep.json", "search.json", "comparisons.json"
SPLIT, SPLIT_COLUMNS = "split.csv", ("file", "label", "patient", "split", "group")
CHECKPOINTS = "checkpoints"
SIDE_FILE = "images.npz"  # beside the checkpoints: recognises the images of a run again
FAMILIAR = ".familiar.npz"  # best.familiar.npz beside best.ckpt: what its network is familiar with
# The figures that stand on the leaderboard and in the HParams tab.
HEADLINES = ("f1_macro", "accuracy", "precision_macro", "recall_macro")
