#!/usr/bin/env bash
# Minutes of a rented GPU into finished, scored, packed runs: scripts/gpu_day.sh MINUTES OUT
#
# Measures for two minutes which way of training is the fastest, unless results/benchmarks has that of
# the same card, trains the next unfinished item of scripts/gpu_plan.txt for the rest, and packs what
# is finished into OUT: at most 8 files of 16 MiB.
# It ends within MINUTES. What did not fit into OUT lies on the machine, and a second
#     scripts/gpu_day.sh 0 OUT
# there puts the rest into OUT. Afterwards, at home:
#     python -m ibgan_jax.unpack OUT/NAME-*.tar --out=results/NAME
#
# An H200 trains 1.4 times as many runs as an H100. The machine needs jax with CUDA, flax, optax,
# orbax-checkpoint and matplotlib; what else it lacks is installed from the wheels in WHEELS:
#     pip download --no-deps --only-binary=:all: --python-version 3.12 -d .whl ml-collections==1.1.0
#
# Environment: WHEELS (.whl), WORK (where the machine keeps data, runs and compiled programs), PLAN,
# MEASURED (a JSON of benchmarks.gpu of the same card; "none": not the one in results/), PROGRAMS
# (programs.tar of an earlier rental), MEASURE, SETTINGS (further arguments of benchmarks.gpu and
# launch.py), LAUNCH (what to run instead of launch.py, for a rehearsal), RESERVE (seconds kept for
# packing).
set -uo pipefail
started=$SECONDS
[ $# = 2 ] || { echo "usage: scripts/gpu_day.sh MINUTES OUT" >&2; exit 2; }
minutes=$1 out=$(realpath -m "$2")
case $minutes in *[!0-9.]* | "") echo "error: MINUTES=$minutes is not a number" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
work=${WORK:-${XDG_CACHE_HOME:-$HOME/.cache}/ibgan_gpu_day}
packed=$work/packed
mkdir -p "$work" "$packed" "$out" || exit 2
total=$(awk "BEGIN { print int(60 * $minutes) }") most_mib=60 most_files=8

say() { echo "$((SECONDS - started)) s: $*"; }
left() { echo $((total - (SECONDS - started))); }

# Copies packed parts that no call has taken yet, as many as OUT may hold.
hand_over() {
  local part used files
  for part in "$packed"/*.tar; do
    [ -e "$part" ] || continue
    used=$(du -ms "$out" | cut -f1) files=$(find "$out" -type f | wc -l)
    if [ $((used + $(du -m "$part" | cut -f1))) -gt $most_mib ] || [ "$files" -ge $most_files ]; then
      say "OUT is full: 'scripts/gpu_day.sh 0 OUT' on this machine hands over the rest"
      return
    fi
    cp "$part" "$out/.part" && mv "$out/.part" "$out/$(basename "$part")" && rm "$part"
    say "$(basename "$part") is in OUT"
  done
}

exec > >(tee "$work/log.txt") 2>&1
if ! python3 -c "import ml_collections" 2> /dev/null; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$work/site" "${WHEELS:-.whl}"/*.whl || { say "no wheels to install"; exit 2; }
  export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
fi
[ "$minutes" = 0 ] && { hand_over; exit 0; }

export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-.75}
export JAX_COMPILATION_CACHE_DIR=$work/programs JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
  JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
if [ -n "${PROGRAMS:-}" ]; then tar -C "$work" -xf "$PROGRAMS" || say "$PROGRAMS is not readable"; fi
python3 -m pip list 2> /dev/null | grep -iE "^(jax|jaxlib|flax|optax|orbax-checkpoint|numpy|torch) "
nvidia-smi -L 2> /dev/null

# The log and the curves so far reach OUT every 20 seconds, so that a cut costs little.
keep() {
  cp "$work/log.txt" "$out/.log" && mv "$out/.log" "$out/log.txt"
  if compgen -G "$work/runs/*/*/metrics.jsonl" > /dev/null; then
    (cd "$work/runs" && tar -czf "$out/.curves" ./*/*/metrics.jsonl ./*/*/config.json) &&
      mv "$out/.curves" "$out/curves.tar.gz"
  fi
}
(while sleep 20; do keep; done) > /dev/null 2>&1 &
keeper=$!
trap 'kill $keeper 2> /dev/null; cp "$work/log.txt" "$out/log.txt"' EXIT

card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2> /dev/null | head -n 1)
known=$(grep -lsF "\"device\": \"$card\"" results/benchmarks/gpu-*.json | tail -n 1)
measured=${MEASURED:-${known:-$work/gpu.json}}
[ "$measured" = none ] && measured=$work/gpu.json
[ "$measured" = "$known" ] && say "$card was measured before: $known"
if [ ! -e "$measured" ]; then
  say "measuring"
  # shellcheck disable=SC2086
  timeout -k 10 200 python3 -m benchmarks.gpu --minutes=2 --json="$measured" ${MEASURE:-} ||
    say "the measurement ended with status $?"
fi
[ -e "$measured" ] || { say "nothing was measured: TF32 it is"; echo '{"rows": []}' > "$measured"; }
cp "$measured" "$out/gpu.json"

next=$(python3 -m benchmarks.rental --measured="$measured" ${PLAN:+--plan="$PLAN"}) ||
  { say "$next"; exit 1; }
mapfile -t arguments <<< "$next"
name=${arguments[0]} arguments=("${arguments[@]:1}")
reserve=${RESERVE:-40}
seconds=$(($(left) - reserve))
say "training $name for $seconds s: ${arguments[*]}"
if [ $seconds -gt 0 ]; then
  # shellcheck disable=SC2086
  python3 "${LAUNCH:-launch.py}" "${arguments[@]}" --workdir="$work/runs/$name" --config.dataset.dir="$work/data" \
    --config.train.max_minutes="$(python3 -c "print($seconds / 60)")" ${SETTINGS:-}
  say "training ended with status $?"
fi

say "packing"
kill $keeper 2> /dev/null
timeout -k 5 "$(($(left) > 10 ? $(left) - 5 : 10))" \
  python3 -m ibgan_jax.pack "$work/runs/$name" --out="$packed/$name.tar" --part_mib=15 ||
  say "packing ended with status $?"
compgen -G "$packed/*.tar" > /dev/null && rm -f "$out/curves.tar.gz" # the parts hold them
[ -d "$work/programs" ] && tar -C "$work" -cf "$work/programs.tar" programs &&
  [ "$(du -m "$work/programs.tar" | cut -f1)" -le 8 ] && cp "$work/programs.tar" "$out/programs.tar"
hand_over
say "done: $(find "$out" -type f | wc -l) files, $(du -ms "$out" | cut -f1) MiB in OUT"
