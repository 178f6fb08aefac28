# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two programs that run on a node, in the shell every memory image has.

They are constant texts for a POSIX shell (the busybox of a memory image is enough). What differs from
node to node is read from their input, one value a line, and never becomes part of a command text. What they
say to the controller starts with ``@orbit``; everything else is output of the client.
"""

from __future__ import annotations

# Facts that tell which system answers. The age of process 1 tells a system that has just booted from one
# that has not gone down yet, also in a container, where the uptime is the host's.
_FACTS = r"""
say() { printf '\n@orbit %s\n' "$*"; }
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
boot=; IFS= read -r boot </proc/sys/kernel/random/boot_id
say boot "$boot"
up=; stat=
read -r up rest </proc/uptime
IFS= read -r stat </proc/1/stat
set -- ${stat##*) }
[ -n "${20}" ] && say age $((${up%%.*} - ${20} / 100))
while IFS= read -r file && [ "$file" != . ]; do
  text=
  [ -f "$file" ] || continue
  IFS= read -r text <"$file"
  say file "$file" "$text"
done
"""

# Input: files to report, "."; run, client, interface, address, port, disk, kind of disk; then the words
# go, stop and bye.
CLIENT = (
    _FACTS
    + r"""
IFS= read -r run; IFS= read -r client; IFS= read -r interface; IFS= read -r address; IFS= read -r port
IFS= read -r disk; IFS= read -r kind
dir="/tmp/orbit-$run"

if [ -b "$disk" ]; then found=block; elif [ -f "$disk" ]; then found=file
elif [ -e "$disk" ]; then found=other; else found=missing; fi
say disk "$found"
if [ "$found" = block ]; then
  while read -r device rest; do
    case "$device" in "$disk"|"$disk"[0-9]*|"$disk"p[0-9]*) say used "$device";; esac
  done </proc/mounts
fi
if command -v "$client" >/dev/null 2>&1; then say client found; else say client missing; fi
[ -d "$dir" ] && say running
say ready

timed=no
follow() {
  tail -n +1 -f "$dir/log" &
  tail=$!
  if (exec 3<>"$dir/ended") 2>/dev/null; then
    exec 3<>"$dir/ended"
    (IFS= read -t 0 -r moment </dev/null) 2>/dev/null
    [ $? -lt 2 ] && timed=yes
  fi
  (
    trap '' PIPE
    while [ ! -s "$dir/status" ]; do
      pulse || exit
      if [ "$timed" = yes ]; then IFS= read -t 2 -r moment <&3; else sleep 1; fi
    done
    kill "$tail" 2>/dev/null
    read -r status <"$dir/status"
    say exit "$status"
    tail -n 20 "$dir/log"
    say end
  ) &
  watcher=$!
}

# How much the client has written: the sign of life that no buffering of its messages hides.
pulse() {
  pid=; wrote=0
  read -r pid 2>/dev/null <"$dir/pid"
  while read -r key value; do
    [ "$key" = wchar: ] && wrote=$value
  done 2>/dev/null <"/proc/$pid/io"
  say pulse "$wrote"
}

start() {
  umask 077
  mkdir "$dir" || { say refused "cannot make $dir"; return 1; }
  mkfifo "$dir/ended" 2>/dev/null
  : >"$dir/log"
  # The client must outlive this session: a dropped connection does not stop a half-written disk.
  (
    trap '' HUP
    "$client" -i "$interface" -m "$address" -p "$port" "$disk" >"$dir/log" 2>&1 </dev/null 3>&- &
    echo $! >"$dir/pid"
    wait $!
    echo $? >"$dir/status.new"
    mv "$dir/status.new" "$dir/status"
    [ -p "$dir/ended" ] && echo 1<>"$dir/ended"
  ) >/dev/null 2>&1 </dev/null &
  say started
  follow
}

tail=; watcher=
while IFS= read -r word; do
  case "$word" in
    go) if [ -d "$dir" ]; then follow; else start; fi;;
    stop) pid=; read -r pid <"$dir/pid" && kill "$pid";;
    bye) break;;
  esac
done
kill $tail $watcher 2>/dev/null
exit 0
"""
)

# Input: files to report, ".".
SYSTEM = (
    _FACTS
    + r"""
say ready
"""
)
