# Starts a server and keeps it, for as long as whoever started this holds the other end of the pipe that this reads.
# Arguments: the server's folder, which goes with a starter that went without a word; the file for what the server says; its command.
folder=$1
log=$2
shift 2
"$@" >>"$log" 2>&1 </dev/null &
server=$!
echo "$server"

# The server and everything that descends from it, or is in this group of processes, in `found`; not what is over already.
find_all() {
  found=" $server "
  before=
  while [ "$before" != "$found" ]; do
    before=$found
    for stat in /proc/[0-9]*/stat; do
      read -r line <"$stat" || continue
      pid=${line%% *}
      rest=${line##*) }
      state=${rest%% *}
      rest=${rest#* }
      parent=${rest%% *}
      rest=${rest#* }
      group=${rest%% *}
      [ "$pid" != "$$" ] && [ "$state" != Z ] || continue
      case $found in *" $pid "*) continue ;; esac
      if [ "$group" = "$$" ]; then found="$found$pid "; continue; fi
      case $found in *" $parent "*) found="$found$pid " ;; esac
    done 2>/dev/null
  done
}

# Whether one of them still runs. The first thread of a process may be over while others still hold its sockets.
any_left() {
  for pid in $found; do
    read -r line <"/proc/$pid/stat" || continue
    rest=${line##*) }
    set -- "/proc/$pid/task"/*
    [ "${rest%% *}" = Z ] && [ "$#" -le 1 ] || return 0
  done 2>/dev/null
  return 1
}

end_all() {
  find_all
  kill -KILL $found 2>/dev/null
  tries=0
  while any_left && [ "$tries" -lt 1000 ]; do
    tries=$((tries + 1))
    sleep 0.01
  done
  wait "$server"
}

while read -r word; do
  case $word in
    KILL)
      end_all
      exit 0
      ;;
    STOP | CONT)
      find_all
      kill -"$word" $found 2>/dev/null
      echo "$word"
      ;;
  esac
done

end_all
case $folder in
  */segue-server-*) rm -rf "$folder" ;;
esac
