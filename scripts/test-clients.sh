#!/usr/bin/env bash
# Runs real clients against a server: openai, litellm, LangChain and lm-eval out of Python packages,
# openai out of npm's where node is there, schemathesis against the OpenAPI document, and clients that
# behave badly.
#
# usage: test-clients.sh [PROGRAM]   the command to test; else target/release or target/debug
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "test-clients.sh: $*" >&2; exit 1; }
step() { printf '\n== %s\n' "$*" >&2; }

program=${1:-}
for built in target/release/modelembed target/debug/modelembed; do
    [ -n "$program" ] || [ ! -x "$built" ] || program=$built
done
[ -x "$program" ] || die "no program: cargo build --package modelembed-cli builds one"
models=${MODELEMBED_MODELS:-models}
model=$models/SmolLM2-135M-Instruct.Q4_1.gguf
[ -f "$model" ] || die "$model is not there: scripts/fetch-model.sh fetches it"

work=$PWD/target/clients
python=$work/venv/bin/python
mkdir -p "$work"
step "clients"
[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$work/venv"
"$python" -m pip install --quiet --disable-pip-version-check --requirement tools/clients/requirements.txt
if command -v npm >/dev/null; then
    mkdir -p "$work/node"
    cp tools/clients/openai_client.mjs "$work/node/"
    (cd "$work/node" && npm install --silent --ignore-scripts --no-audit --no-fund openai@7.59.0 >/dev/null)
else
    echo "skipped: there is no npm for the client for Node" >&2
fi

server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true' EXIT

# Starts a server with contexts of so many tokens, and sets its address.
start() {
    "$program" serve -model "$model" -port 0 -log off -ctx "$1" 2> "$work/server.log" &
    server=$!
    url=
    for _ in $(seq 600); do
        url=$(sed -n 's/^Serving .* on \(http[^ ]*\):.*/\1/p' "$work/server.log")
        [ -z "$url" ] || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/server.log" >&2
    die "the server did not start"
}

# Ends it, and looks at how it ended.
stop() {
    local code=0
    kill -TERM "$server"
    wait "$server" || code=$?
    server=
    [ "$code" = 0 ] || { cat "$work/server.log" >&2; die "the server ended with $code"; }
    ! grep -i panicked "$work/server.log" || die "the server panicked"
}

start 4096
step "openai for Python"
"$python" tools/clients/openai_client.py "$url"
step "litellm"
"$python" tools/clients/litellm_client.py "$url"
step "LangChain"
"$python" tools/clients/langchain_client.py "$url"
if command -v npm >/dev/null; then
    step "openai for Node"
    (cd "$work/node" && node openai_client.mjs "$url")
fi
step "lm-eval"
HF_HUB_OFFLINE=1 "$python" tools/clients/lm_eval_client.py "$url" "$model" "$work/tokenizer"
stop

step "clients that leave, do not read, are killed or send nonsense"
"$python" tools/serve_survival.py --requests 200 "$program" "$model"

# Short contexts, so that what it makes up is answered soon.
start 64
step "schemathesis"
cd "$work" # it leaves notes where it runs
venv/bin/schemathesis run "$url/openapi.json" --url "$url" --max-examples 8 --workers 1 --no-color \
    --phases examples,coverage,fuzzing --exclude-path /metrics --request-timeout 60 \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance
stop
echo "all clients were answered"
