# Shared by the make-*.sh scripts: source it, do not run it.
set -euo pipefail
# Paths of this machine have no place in the recorded command lines.
unset LIBRARY_PATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH CPATH LD_LIBRARY_PATH
export LC_ALL=C
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
JOBS=${JOBS:-2}

# capture NAME CC ARGUMENT...  writes NAME.rsp here: the ld command line that `CC ARGUMENT...`
# would run, without -o.
capture() {
    local name=$1
    shift
    "$@" -o KLD_OUT -### 2>&1 | python3 "$HERE/capture.py" > "$name.rsp"
}
