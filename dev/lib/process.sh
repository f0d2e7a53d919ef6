# Programs that are left running: started in sessions of their own, known by a file with their process id.
# Sourced, never run.
#
# A process id alone can lie after a reboot, so the file holds the start time too, and a digest of the
# command, so that a changed command restarts the program.

PIDS=$RUN/pids

# started_at PID: the kernel's start time of a live process; nothing for one that is gone or a zombie.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  stat=${stat##*) }
  # shellcheck disable=SC2086 # split on purpose: the fields after the command's name
  set -- $stat
  [[ $1 == Z ]] || printf '%s' "${20}"
}

# pid_of NAME: the process id, if the program that we started is still running.
pid_of() {
  local pid start
  [[ -f $PIDS/$1 ]] || return 1
  read -r pid start _ <"$PIDS/$1" || return 1
  [[ -n $start && $(started_at "$pid") == "$start" ]] || return 1
  printf '%s' "$pid"
}

is_running() {
  pid_of "$1" >/dev/null
}

# start_process NAME COMMAND...: starts it unless the very same command is running already.
# Returns 0 in both cases; the log is $LOGS/NAME.log.
start_process() {
  local name=$1 digest recorded pid
  shift
  mkdir -p "$PIDS" "$LOGS"
  digest=$(printf '%s\0' "$@" "${PROCESS_INPUT:-}" | sha256sum | cut -c1-16)
  if pid=$(pid_of "$name"); then
    read -r _ _ recorded <"$PIDS/$name"
    [[ $recorded == "$digest" ]] && return 0
    say "  $name: its configuration changed, restarting it"
    stop_process "$name"
  fi
  rm -f "$PIDS/$name"
  # The shell that writes the file is replaced by the program, which so has its process id and start time. It is written
  # before there is a program, so that whatever ends this command leaves none that nobody knows.
  # shellcheck disable=SC2016 # expanded by the inner shell
  setsid bash -c '
    stat=$(</proc/$$/stat) && stat=${stat##*) } && set -f && fields=($stat) &&
      printf "%s %s %s\n" "$$" "${fields[19]}" "$1" >"$0.new" && mv "$0.new" "$0" && shift && exec "$@"' \
    "$PIDS/$name" "$digest" "$@" >>"$LOGS/$name.log" 2>&1 </dev/null 9>&- &
  disown
  local tries=0
  until [[ -s $PIDS/$name ]]; do
    ((++tries < 100)) || die "$name did not start"
    sleep 0.05
  done
}

# signal_process NAME SIGNAL: to the program and everything it started in its session's group.
signal_process() {
  local pid
  pid=$(pid_of "$1") || return 0
  kill -"$2" -- "-$pid" 2>/dev/null || kill -"$2" "$pid" 2>/dev/null || true
}

# stop_process NAME [SIGNAL [SECONDS]]: asks by the signal (TERM), insists with KILL after the seconds (15).
# The signal goes to the program alone: it knows how to end its children.
stop_process() {
  local name=$1 signal=${2:-TERM} seconds=${3:-15} pid deadline
  if pid=$(pid_of "$name"); then
    kill -"$signal" "$pid" 2>/dev/null || true
    deadline=$(($(date +%s) + seconds))
    while is_running "$name"; do
      if (($(date +%s) >= deadline)); then
        kill_process "$name"
        break
      fi
      sleep 0.1
    done
  fi
  rm -f "$PIDS/$name"
}

# kill_process NAME: as a crash does it, at once and without a word, children included.
kill_process() {
  local name=$1 pid tries=0
  pid=$(pid_of "$name") || {
    rm -f "$PIDS/$name"
    return 0
  }
  signal_process "$name" KILL
  # Until the kernel has let go of the whole group: a successor finds locks of those that still seem alive.
  while kill -0 -- "-$pid" 2>/dev/null; do
    ((++tries < 200)) || die "$name does not die"
    sleep 0.05
  done
  rm -f "$PIDS/$name"
}

# ready_process SECONDS NAME COMMAND...: waits for a program of ours to answer, and fails at once if it died.
ready_process() {
  local seconds=$1 name=$2
  shift 2
  wait_until "$seconds" "$name answers" "$LOGS/$name.log" answers_or_died "$name" "$@"
  if ! is_running "$name"; then
    printf 'error: %s ended right after its start\n--- the end of %s\n' "$name" "$LOGS/$name.log" >&2
    tail -n 30 "$LOGS/$name.log" >&2
    return 1
  fi
}

answers_or_died() {
  local name=$1
  shift
  is_running "$name" || return 0
  "$@"
}

# heal_process NAME COMMAND...: a program that runs but does not answer in ten seconds is killed, to be started anew.
heal_process() {
  local name=$1 tries=0
  shift
  is_running "$name" || return 0
  until "$@" >/dev/null 2>&1; do
    if ((++tries >= 50)); then
      say "  $name: runs but does not answer, starting it anew"
      kill_process "$name"
      return 0
    fi
    sleep 0.2
  done
}
