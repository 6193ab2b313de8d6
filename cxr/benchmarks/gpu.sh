#!/usr/bin/env bash
# Make a folder that holds all that `python -m cxr.bench --gpu` needs on a machine with no network and no registry, where
# PyTorch, torchvision, pytorch-lightning, torchmetrics, tensorboard and what they need are installed already.
# usage: bash cxr/benchmarks/gpu.sh IMAGES.tar [FOLDER]        in a virtual environment that has cxr
set -euo pipefail
[ $# -ge 1 ] && [ -f "$1" ] || { echo "usage: bash cxr/benchmarks/gpu.sh IMAGES.tar [FOLDER]" >&2; exit 2; }
images=$(realpath "$1") folder=$(realpath -m "${2:-build/gpu}")
cd "$(dirname "$0")/../.."
# Only a folder that this script made is written anew.
[ ! -e "$folder" ] || [ -f "$folder/run.sh" ] || { echo "gpu.sh: $folder exists; choose another FOLDER" >&2; exit 2; }
rm -rf "$folder"
mkdir -p "$folder/wheels"
git ls-files -z --cached --others --exclude-standard cxr conf | tar --null -T - -cf - | tar -C "$folder" -xf -
cp "$images" "$folder/images.tar"
# The versions that are installed here; all are pure Python. antlr4 has no wheel of its own: pip makes one.
python3 -m pip freeze | grep -iE '^(hydra-core|hydra-joblib-launcher|omegaconf|antlr4-python3-runtime)==' |
  python3 -m pip wheel -q --no-deps --wheel-dir "$folder/wheels" -r /dev/stdin
cat >"$folder/run.sh" <<'RUN'
#!/usr/bin/env bash
# usage: bash run.sh OUT [further arguments of python -m cxr.bench --gpu]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for wheel in "$here"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$here/site"; done
PYTHONPATH=$here:$here/site exec python3 -m cxr.bench --gpu --images "$here/images.tar" --out "$1" "${@:2}"
RUN
(cd "$folder" && { du -sk images.tar wheels/* cxr conf run.sh && du -sk . | sed 's/\.$/in all/'; }) |
  awk -F'\t' '{ printf "%9.2f MiB  %s\n", $1 / 1024, $2 }'
echo "copy $folder to the machine, and run there: bash $(basename "$folder")/run.sh OUT"
