# Redis, Kafka and PostgreSQL: real servers with ports, data and passwords of their own. Sourced, never run.
#
# They listen on 127.0.0.1 and on the node's address, so programs on this machine and pods reach the same ones.

SERVERS=(redis kafka postgres)

# secret_of NAME: a random password, made once and kept until `down`.
secret_of() {
  local file=$SECRETS/$1
  if [[ ! -s $file ]]; then
    mkdir -p "$SECRETS"
    chmod 700 "$SECRETS"
    (umask 077 && random_password >"$file")
  fi
  cat "$file"
}

servers_up() {
  network_up
  local name
  # Started together, then waited for: Kafka takes the longest.
  for name in kafka postgres redis; do
    heal_process "$name" "${name}_answers"
    "${name}_start"
  done
  for name in redis postgres kafka; do "${name}_wait"; done
}

servers_down() {
  local name
  for name in "${SERVERS[@]}"; do "${name}_stop"; done
}

# --- Redis: no persistence, since it is a filter and not the record.

redis_start() {
  mkdir -p "$RUN/redis"
  (umask 077 && cat >"$RUN/redis/redis.conf.new" <<CONF
bind 127.0.0.1 $NODE_IP
port $REDIS_PORT
dir $RUN/redis
save ""
appendonly no
maxmemory-policy noeviction
tcp-backlog 4096
requirepass $(secret_of redis)
CONF
  )
  write_file "$RUN/redis/redis.conf" <"$RUN/redis/redis.conf.new"
  chmod 600 "$RUN/redis/redis.conf"
  rm -f "$RUN/redis/redis.conf.new"
  PROCESS_INPUT=$(<"$RUN/redis/redis.conf") start_process redis redis-server "$RUN/redis/redis.conf"
}

redis_wait() {
  ready_process 20 redis redis_answers
}

redis_answers() {
  [[ $(redis_cli ping) == PONG ]]
}

redis_cli() {
  REDISCLI_AUTH=$(secret_of redis) redis-cli -p "$REDIS_PORT" "$@"
}

redis_stop() {
  stop_process redis TERM 10
}

# --- Kafka: one process, broker and controller.


KAFKA_CLASSPATH="$CACHE/kafka/libs/*"

kafka_start() {
  local dir=$RUN/kafka
  [[ -d $CACHE/kafka/libs ]] || die "Kafka's jars are missing: run \`make tools\`"
  mkdir -p "$dir"
  write_file "$dir/log4j2.properties" <<'CONF'
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
CONF
  write_file "$dir/server.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$KAFKA_CONTROLLER_PORT
listeners=MACHINE://127.0.0.1:$KAFKA_PORT,PODS://$NODE_IP:$KAFKA_POD_PORT,CONTROLLER://127.0.0.1:$KAFKA_CONTROLLER_PORT
advertised.listeners=MACHINE://127.0.0.1:$KAFKA_PORT,PODS://$NODE_IP:$KAFKA_POD_PORT
listener.security.protocol.map=MACHINE:PLAINTEXT,PODS:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=MACHINE
controller.listener.names=CONTROLLER
log.dirs=$dir/data
auto.create.topics.enable=false
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
CONF
  if [[ ! -f $dir/data/meta.properties ]]; then
    rm -rf "$dir/data"
    java -Xmx128m -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$KAFKA_CLASSPATH" \
      kafka.tools.StorageTool format --standalone -t "$(kafka_cluster_id)" -c "$dir/server.properties" \
      >"$dir/format.log" 2>&1 || {
      tail -n 20 "$dir/format.log" >&2
      die "Kafka's storage could not be formatted"
    }
  fi
  PROCESS_INPUT=$(<"$dir/server.properties") start_process kafka \
    java -Xms512m -Xmx512m -XX:+UseG1GC -Djava.awt.headless=true \
    -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$KAFKA_CLASSPATH" \
    kafka.Kafka "$dir/server.properties"
}

# Sixteen random bytes as Kafka writes them; never with a dash first, which would read as an option.
kafka_cluster_id() {
  printf 'Q%s' "$(openssl rand -base64 24 | tr -d '+/=\n' | cut -c1-20)Q"
}

kafka_wait() {
  ready_process 60 kafka kafka_answers
}

# Both listeners open, which Kafka does last.
kafka_answers() {
  grep -q 'Kafka Server started' "$LOGS/kafka.log" && port_open 127.0.0.1 "$KAFKA_PORT" &&
    port_open "$NODE_IP" "$KAFKA_POD_PORT"
}

kafka_stop() {
  stop_process kafka TERM 20
}

# --- PostgreSQL: durable, as the ledger is the record.

POSTGRES_DATABASES=(quokka_users quokka_promotions quokka_stays quokka_booking quokka_orders quokka_payments)

as_postgres() {
  setpriv --reuid=postgres --regid=postgres --init-groups --reset-env "$@"
}

postgres_start() {
  local bin
  bin=$(postgres_bin) || die "PostgreSQL is missing: run \`make tools\`"
  id postgres >/dev/null 2>&1 || die "the user postgres, which Debian's package makes, is missing"
  if [[ ! -d $POSTGRES_DIR/data ]]; then
    # Made whole under another name: a folder left half made by a killed run is not taken for one.
    local made=$POSTGRES_DIR/data.new
    rm -rf "${POSTGRES_DIR:?}/data.new"
    mkdir -p "$POSTGRES_DIR"
    chown postgres:postgres "$POSTGRES_DIR"
    chmod 700 "$POSTGRES_DIR"
    mkdir -p "$LOGS"
    (cd / && as_postgres "$bin/initdb" -D "$made" -U postgres -E UTF8 --locale=C.UTF-8 \
      --auth-local=trust --auth-host=scram-sha-256) >"$LOGS/initdb.log" 2>&1 || {
      tail -n 20 "$LOGS/initdb.log" >&2
      die "PostgreSQL's data folder could not be made"
    }
    # Pods come from their own addresses; nobody without a password, and nobody as the superuser.
    printf 'host all +quokka %s scram-sha-256\nhost all +quokka %s scram-sha-256\n' \
      "$POD_NET" "$NODE_NET" >>"$made/pg_hba.conf"
    mv "$made" "$POSTGRES_DIR/data"
  fi
  start_process postgres setpriv --reuid=postgres --regid=postgres --init-groups --reset-env \
    "$bin/postgres" -D "$POSTGRES_DIR/data" \
    -c "listen_addresses=127.0.0.1,$NODE_IP" -c port="$POSTGRES_PORT" \
    -c dynamic_shared_memory_type=mmap -c unix_socket_directories="$POSTGRES_DIR" -c max_connections=300 -c shared_buffers=128MB \
    -c fsync=on -c synchronous_commit=on -c full_page_writes=on -c max_wal_size=512MB \
    -c log_min_messages=warning -c timezone=UTC
}

postgres_wait() {
  ready_process 40 postgres postgres_answers
  local database
  psql_admin -c "do \$\$ begin create role quokka nologin; exception when duplicate_object then null; end \$\$"
  for database in "${POSTGRES_DATABASES[@]}"; do
    psql_admin -c "do \$\$ begin create role $database login in role quokka;
      exception when duplicate_object then null; end \$\$" \
      -c "alter role $database password '$(secret_of "postgres-$database")'"
    [[ $(psql_admin -c "select 1 from pg_database where datname = '$database'") == 1 ]] ||
      psql_admin -c "create database $database owner $database"
  done
}

postgres_answers() {
  psql_admin -c 'select 1'
}

# psql_admin ARGUMENTS...: as the superuser, through the socket that only root and postgres can enter.
psql_admin() {
  (cd / && as_postgres "$(postgres_bin)/psql" -X -q -t -A -v ON_ERROR_STOP=1 \
    -h "$POSTGRES_DIR" -p "$POSTGRES_PORT" -U postgres "$@") 2>&1
}

postgres_stop() {
  # INT is its fast shutdown: sessions are ended, nothing is lost.
  stop_process postgres INT 30
}

# --- Addresses, as the services' settings want them.

redis_url() {
  printf 'redis://default:%s@%s:%s' "$(secret_of redis)" "$1" "$REDIS_PORT"
}

postgres_url() {
  printf 'postgres://%s:%s@%s:%s/%s' "$2" "$(secret_of "postgres-$2")" "$1" "$POSTGRES_PORT" "$2"
}

# servers_env: lines to be evaluated by a shell, for programs on this machine.
servers_env() {
  printf 'export QUOKKA_REDIS_URL=%s\n' "$(redis_url 127.0.0.1)"
  printf 'export QUOKKA_KAFKA_BROKERS=127.0.0.1:%s\n' "$KAFKA_PORT"
  local database name
  for database in "${POSTGRES_DATABASES[@]}"; do
    name=${database^^}
    printf 'export %s_DATABASE_URL=%s\n' "$name" "$(postgres_url 127.0.0.1 "$database")"
  done
  printf 'export QUOKKA_TOSS_SIMULATOR_URL=http://127.0.0.1:%s\n' "$TOSS_NODE_PORT"
  printf 'export KUBECONFIG=%s\n' "$KUBECONFIG_LOCAL"
}

# server_command ACTION NAME: what chaos tests and curious people use.
server_command() {
  local action=${1:-} name=${2:-}
  [[ " ${SERVERS[*]} " == *" $name "* ]] || die "no server named '$name': one of ${SERVERS[*]}"
  case $action in
    start)
      "${name}_start"
      "${name}_wait"
      ;;
    stop) "${name}_stop" ;;
    kill) kill_process "$name" ;;
    restart)
      "${name}_stop"
      "${name}_start"
      "${name}_wait"
      ;;
    status) if pid=$(pid_of "$name"); then echo "$name: running, process $pid"; else
      echo "$name: stopped"
      exit 1
    fi ;;
    *) die "no action '$action': one of start, stop, kill, restart, status" ;;
  esac
}
