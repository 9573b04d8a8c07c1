#!/usr/bin/env bash
# The walk over many machines: builds both images, brings compose.yaml up, sends, scales, kills, and counts what arrived.
# Not part of the test suite: it needs a Docker engine. Leaves nothing behind; exit 0 if nothing was lost.
#
#   tests/acceptance/containers.sh               Redis rings the bells
#   tests/acceptance/containers.sh rabbitmq      RabbitMQ does
#
# BUILD_OPTIONS are passed to `docker build` (behind a proxy: --network host). IMAGES=keep takes the images as they are.
set -euo pipefail
cd "$(dirname "$0")/../.."

broker=${1:-redis} count=${COUNT:-300}
work=$(mktemp -d)
export COMPOSE_PROJECT_NAME=esb-walk API_PORT=${API_PORT:-18080} FLOWER_PORT=${FLOWER_PORT:-15555}
url=http://127.0.0.1:$API_PORT key=$(python3 -c 'import secrets; print(secrets.token_hex(24))')
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(--env-file "$work/env")
[ "$broker" = rabbitmq ] && compose+=(--profile rabbitmq)

cat >"$work/env" <<EOF
ESB_ADMIN_KEY=$key
ESB_SECRET_KEYS=$(python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())')
ESB_FLOWER_AUTH=walker:$key
POSTGRES_PASSWORD=$key
RABBITMQ_PASSWORD=$key
EOF
[ "$broker" = rabbitmq ] && echo "ESB_BROKER_URL=amqp://esb:$key@rabbitmq:5672//" >>"$work/env"

clean_up() {
  status=$?
  [ $status = 0 ] || "${compose[@]}" logs --no-color --tail 20 2>/dev/null | tail -120 || true
  docker rm -f esb-walk-receiver >/dev/null 2>&1 || true
  "${compose[@]}" down -v -t 5 >/dev/null 2>&1 || true
  rm -rf "$work"
  [ $status = 0 ] && echo "walked: nothing was lost" || echo "the walk failed" >&2
}
trap clean_up EXIT

say() { printf '%6.1f s  %s\n' "$(python3 -c "import time; print(time.time() - $began)")" "$*"; }
call() { curl -fsS --max-time 20 -H "X-API-Key: $key" -H 'Content-Type: application/json' "$@"; }
field() { python3 -c "import json, sys; d = json.load(sys.stdin); print($1)"; }
until_true() {  # until_true SECONDS WHAT COMMAND…
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "waited in vain for: $what" >&2; return 1; }
    sleep 0.5
  done
}
workers() { curl -fsS "$url/health/ready" | field "d['status'] == 'ok' and all(d['workers'][p] >= n for p, n in $1.items())" | grep -q True; }
arrived() { docker exec esb-walk-receiver python3 -c "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9000').read().decode())" | field "d['$1']"; }
all_arrived() { [ "$(arrived ids)" -ge "$1" ]; }
send() {  # send HOW_MANY: in batches of fifty
  python3 - "$1" <<'P' >"$work/batches"
import json, sys
left, n = int(sys.argv[1]), 0
while left > 0:
    size = min(50, left)
    print(json.dumps({"messages": [{"source": "walk", "messageType": "walk.step", "payload": {"n": n + i}} for i in range(size)]}))
    left, n = left - size, n + size
P
  while read -r batch; do call "$url/routing/send/batch" -d "$batch" >/dev/null; done <"$work/batches"
}
containers() { "${compose[@]}" ps -q "$1"; }

began=$(date +%s.%N)
if [ "${IMAGES:-build}" != keep ]; then
  for image in worker api; do docker build ${BUILD_OPTIONS:-} -q -f "$image.Dockerfile" -t "esb-$image" . >/dev/null; done
  say "built esb-worker and esb-api: $(docker images --format '{{.Repository}} {{.Size}}' | grep -E '^esb-(api|worker) ' | sort | paste -sd, -)"
fi
[ "$broker" = rabbitmq ] && { "${compose[@]}" up -d --no-build rabbitmq >/dev/null 2>&1; say "RabbitMQ starts"; }
"${compose[@]}" up -d --no-build >/dev/null 2>&1
until_true 120 "every pool" workers "{'routing': 1, 'delivery': 1, 'orchestration': 1, 'health': 1}"
say "up, with $broker: $(curl -fsS "$url/health/ready")"

docker run -d --name esb-walk-receiver --network esb-walk_default --network-alias receiver \
  -v "$PWD/tests/acceptance/receiver.py:/receiver.py:ro" --entrypoint python3 esb-worker /receiver.py 9000 0.2 >/dev/null
call "$url/services" -d '{"name": "walker", "version": "1.0.0", "endpoint": "http://receiver:9000"}' >/dev/null
call "$url/routing/routes" -d '{"name": "walk", "pattern": "walk.#", "destinations": ["walker"],
  "retryPolicy": {"maxRetries": 10, "initialDelay": 500, "backoffStrategy": "fixed"}}' >/dev/null
heard() {  # a bell wakes routing and delivery at once; without it, each of them polls after up to two seconds
  local took
  took=$(call -o /dev/null -w '%{time_total}' -H 'Prefer: wait=10' "$url/routing/send" \
    -d '{"source": "walk", "messageType": "walk.bell", "payload": null}')
  tried=$((tried + 1)) && python3 -c "import sys; sys.exit($took > 0.5)"
}
tried=0
until_true 20 "a bell that is heard" heard
say "a message went through in less than half a second"

count=$((count - tried)) && send $count && count=$((count + tried))
until_true 60 "$count messages" all_arrived "$count"
say "$count messages arrived by one delivery worker"

"${compose[@]}" up -d --no-build --no-recreate --scale worker-delivery=3 >/dev/null 2>&1
until_true 60 "three delivery workers" workers "{'delivery': 3}"
say "scaled to three delivery workers"

victim=$(containers worker-delivery | head -1) router=$(containers worker-routing)
send "$count" & sender=$!
until_true 30 "the middle of the work" all_arrived $((count + count / 5))
docker kill -s KILL "$victim" "$router" >/dev/null
[ "$broker" = redis ] && docker exec "$(containers redis)" redis-cli flushall >/dev/null
say "killed a delivery worker and the routing worker$([ "$broker" = redis ] && echo ', and emptied Redis'), with $(($(arrived ids) - count)) of $count arrived"
wait "$sender"
send "$count"
"${compose[@]}" up -d --no-build --no-recreate --scale worker-delivery=3 >/dev/null 2>&1
until_true 90 "$((3 * count)) messages" all_arrived $((3 * count))
say "all $((3 * count)) arrived: $(arrived calls) calls for $(arrived ids) deliveries"

before=$(($(arrived calls) - $(arrived ids)))
send "$count"
"${compose[@]}" up -d --no-build --no-recreate --scale worker-delivery=1 >/dev/null 2>&1
until_true 60 "$((4 * count)) messages" all_arrived $((4 * count))
[ $(($(arrived calls) - $(arrived ids))) = "$before" ] || { echo "a clean stop sent something twice" >&2; exit 1; }
say "scaled down to one under load: nothing lost, nothing twice"

settled() { [ "$(call "$url/system/queues" | field "sum(i['due'] + i['inFlight'] for i in d['items'])")" = 0 ]; }
until_true 30 "empty queues" settled
[ "$(call "$url/routing/logs?status=delivered&limit=1" | field "len(d['items'])")" = 1 ]
for status in failed unroutable routed accepted; do
  [ "$(call "$url/routing/logs?status=$status&limit=1" | field "len(d['items'])")" = 0 ] || { echo "a message is $status" >&2; exit 1; }
done
[ "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$FLOWER_PORT/workers")" = 401 ] && curl -fsS -o /dev/null -u "walker:$key" "http://127.0.0.1:$FLOWER_PORT/workers"
say "every message is delivered; Flower asks for its password"
