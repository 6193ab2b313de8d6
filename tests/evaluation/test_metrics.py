import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from cxr.evaluation.metrics import as_plain, evaluation_metrics, training_metrics
from cxr.reporting.console import per_class_table


@pytest.fixture
def predicted():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 200, p=[0.6, 0.3, 0.1])
    probabilities = rng.dirichlet([1, 1, 1], 200) + np.eye(3)[labels] * 0.3
    return labels, probabilities / probabilities.sum(1, keepdims=True)


def test_all_figures_equal_scikit_learns(predicted):
    labels, probabilities = predicted
    metrics = evaluation_metrics(3)
    for part in range(0, 200, 64):
        metrics.update(torch.tensor(probabilities[part : part + 64]), torch.tensor(labels[part : part + 64]))
    scores = as_plain(metrics.compute(), ("A", "B", "C"))
    said = probabilities.argmax(1)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(labels, said), abs=1e-6)
    assert scores["auroc_macro"] == pytest.approx(sk.roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-6)
    assert scores["confusion_matrix"] == sk.confusion_matrix(labels, said).tolist()
    each = sk.precision_recall_fscore_support(labels, said)
    mean = sk.precision_recall_fscore_support(labels, said, average="macro")
    for k, key in enumerate(("precision", "recall", "f1")):
        assert scores[f"{key}_macro"] == pytest.approx(mean[k], abs=1e-6)
        assert [scores["per_class"][c][key] for c in "ABC"] == pytest.approx(each[k].tolist(), abs=1e-6)
    assert [scores["per_class"][c]["support"] for c in "ABC"] == each[3].tolist()


def test_training_metrics(predicted):
    labels, probabilities = predicted
    metrics = training_metrics(3)
    metrics.update(torch.tensor(probabilities).log(), torch.tensor(labels))
    assert metrics.compute()["f1_macro"] == pytest.approx(sk.f1_score(labels, probabilities.argmax(1), average="macro"))


def test_table_of_classes(predicted):
    metrics = evaluation_metrics(2)
    metrics.update(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), torch.tensor([0, 1, 1]))
    scores = as_plain(metrics.compute(), ("NORMAL", "TUBERCULOSIS"))
    ends = {"recall": [0.1, 0.9], "f1": [0.2, 0.8]}
    macro = {f"{key}_macro": [0.3, 0.7] for key in ends}
    text = per_class_table(scores | {"ci95": {"per_class": dict.fromkeys(scores["per_class"], ends), **macro}})
    row = "TUBERCULOSIS      1.000  0.500 [0.100, 0.900]  0.667 [0.200, 0.800]       2"
    assert text.splitlines()[2] == row
    assert text.splitlines()[-1] == "macro mean        0.750  0.750 [0.300, 0.700]  0.667 [0.300, 0.700]       3"
