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
PATH="${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Whatever the session was given: programs speak as they are read here, and files are nobody else's.
LC_ALL=C; export PATH LC_ALL
umask 077
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
  text=$(head -c 4096 "$file" | head -n 1 | tr -d '\000')
  say file "$file" "$text"
done
"""

# What the disk is, how large, which one, and what on this system uses it, or anything else of the same disk.
# sysfs says which partitions belong together, whatever the names are that tables and links give them.
_DISK = r"""
sysfs() {
  found=; path=$(readlink -f "$1") || return
  case "$path" in
    /dev/*) for at in "/sys/class/block/${path##*/}" "/sys/block/${path##*/}"; do
        [ -d "$at" ] && { found=$(readlink -f "$at"); return; }
      done;;
  esac
}
part_of_disk() { [ -n "$found" ] && case "$found/" in "$whole"/*) true;; *) false;; esac; }

describe_disk() {
  sysfs "$disk"
  own=$found; whole=$found; real=$path
  [ -n "$own" ] && [ -f "$own/partition" ] && whole=${own%/*}
  if [ -f "$disk" ]; then
    set -- $(ls -lnL "$disk")
    say bytes "$5"
  elif [ -n "$own" ]; then
    sectors=; read -r sectors 2>/dev/null <"$own/size" && say sectors "$sectors"
  fi
  [ -n "$whole" ] || return
  serial=
  for file in "$whole/serial" "$whole/device/serial"; do
    [ -z "$serial" ] && [ -r "$file" ] && read -r serial <"$file"
  done
  # A SCSI or ATA disk tells it as a page of binary data, of which the first four bytes are the header.
  [ -z "$serial" ] && [ -r "$whole/device/vpd_pg80" ] &&
    serial=$(tail -c +5 "$whole/device/vpd_pg80" | tr -d '\000') && set -- $serial && serial=$*
  [ -n "$serial" ] && say serial "$serial"
}

describe_use() {
  while read -r device point rest; do
    case "$device" in
      "$disk"|"$disk"[0-9]*|"$disk"p[0-9]*|"$real"|"$real"[0-9]*|"$real"p[0-9]*)
        say used "mounted on $point";;
      /*) sysfs "$device"; part_of_disk && say used "mounted on $point";;
    esac
  done </proc/mounts
  while read -r id parent number root point rest; do
    case "$number" in
      0:*) ;;
      *) found=$(readlink -f "/sys/dev/block/$number") && part_of_disk && say used "mounted on $point";;
    esac
  done 2>/dev/null </proc/self/mountinfo
  while read -r device rest; do
    case "$device" in /*) sysfs "$device"; part_of_disk && say used "$device is swap";; esac
  done 2>/dev/null </proc/swaps
  [ -n "$whole" ] || return
  for holder in "$whole"/holders/* "$whole"/*/holders/*; do
    [ -e "$holder" ] && say used "${holder##*/} lies on it"
  done
}
"""

# Input: files to report, "."; run, client, interface, address, port, disk, whether to ask the client what
# it can (yes or no), the only server that it may listen to, or an empty line. Then words:
# "manifest N", to which it says "send" and takes N bytes; "go", with "verify"
# and "resume" behind it where the client shall do that; "stop", "kill"; "bye".
CLIENT = (
    _FACTS
    + _DISK
    + r"""
IFS= read -r run; IFS= read -r client; IFS= read -r interface; IFS= read -r address; IFS= read -r port
IFS= read -r disk; IFS= read -r ask; IFS= read -r server
dir="/tmp/orbit-$run"

if [ -b "$disk" ]; then is=block; elif [ -f "$disk" ]; then is=file
elif [ -e "$disk" ]; then is=other; else is=missing; fi
say disk "$is"
case "$is" in block|file) describe_disk;; esac
[ "$is" = block ] && describe_use

# What the client's help says it can. Clients that do not know the option show their usage and end; one that
# does not end is ended. It may be a wrapper script: in a session of its own it is ended with all that it has
# started, and it speaks into a file, as who else has a pipe open keeps the end off that is waited for.
usage() {
  rm -rf "$dir.help"; mkdir "$dir.help" || return
  (
    own=; command -v setsid && own=setsid
    (ulimit -f 128; exec $own "$client" --help) >"$dir.help/text" 2>&1 </dev/null &
    asked=$!
    (sleep 5; kill -9 "-$asked" "$asked") &
    timer=$!
    wait "$asked"
    kill "$timer"
    [ -n "$own" ] && kill -9 "-$asked"
  ) >/dev/null 2>&1
  help=$(head -c 65536 "$dir.help/text")
  rm -rf "$dir.help"
}
with_server=
if command -v "$client" >/dev/null 2>&1; then
  say client found
  if [ "$ask" = yes ]; then
    help=; usage 2>/dev/null
    for option in manifest verify resume; do
      case "$help" in *--$option*) say can "$option";; esac
    done
    # Clients of the field listen to whoever sends.
    case "$help" in *--server*) with_server=$server;; esac
  fi
else
  say client missing
fi
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
      heartbeat || exit
      if [ "$timed" = yes ]; then IFS= read -t 2 -r moment <&3; else sleep 1; fi
    done
    kill "$tail" 2>/dev/null
    read -r status <"$dir/status"
    say exit "$status"
    tail -n 60 "$dir/log"
    say end
  ) &
  watcher=$!
}

# How much the client has written and, when it compares, read: the sign of life that no buffering of its
# messages hides. What comes from the network counts as neither.
heartbeat() {
  pid=; wrote=0; seen=0
  read -r pid 2>/dev/null <"$dir/pid"
  while read -r key value; do
    case "$key" in wchar:) wrote=$value;; rchar:) seen=$value;; esac
  done 2>/dev/null <"/proc/$pid/io"
  say heartbeat "$wrote $seen"
}

# Nothing else is sent before it is here, so it does no harm that head reads ahead.
take() {
  rm -rf "$dir.new"
  words=$(mkdir "$dir.new" 2>&1) || { say refused "$words"; exit; }
  say send
  words=$(head -c "$1" 2>&1 >"$dir.new/manifest")
  set -- "$1" $(ls -ln "$dir.new/manifest")
  [ "$6" = "$1" ] || { say refused "$6 of $1 bytes of the manifest arrived in $dir.new: $words"; exit; }
  say taken
}

start() {
  if [ -d "$dir.new" ]; then mv "$dir.new" "$dir"; else mkdir "$dir"; fi
  [ -d "$dir" ] || { say refused "cannot make $dir"; return 1; }
  mkfifo "$dir/ended" 2>/dev/null
  : >"$dir/log"
  set -- " $1 " -i "$interface" -m "$address" -p "$port"
  [ -n "$with_server" ] && set -- "$@" --server "$with_server"
  [ -f "$dir/manifest" ] && set -- "$@" --manifest "$dir/manifest"
  case "$1" in *" verify "*) set -- "$@" --verify;; esac
  case "$1" in *" resume "*) set -- "$@" --resume;; esac
  shift
  # The client must outlive this session: a dropped connection does not stop a half-written disk.
  (
    trap '' HUP
    "$client" "$@" "$disk" >"$dir/log" 2>&1 </dev/null 3>&- &
    echo $! >"$dir/pid"
    wait $!
    echo $? >"$dir/status.new"
    mv "$dir/status.new" "$dir/status"
    [ -p "$dir/ended" ] && echo 1<>"$dir/ended"
  ) >/dev/null 2>&1 </dev/null &
  say started
  follow
}

# Who runs the client and has come from it: what writes may be the program of a wrapper script.
family() {
  found=; before=none
  read -r pid 2>/dev/null <"$dir/pid" && found=$pid || return
  while [ "$found" != "$before" ]; do
    before=$found
    for file in /proc/[0-9]*/stat; do
      stat=; IFS= read -r stat 2>/dev/null <"$file"
      set -- ${stat##*) }
      case " $found " in
        *" ${stat%% *} "*) ;;
        *" $2 "*) found="$found ${stat%% *}";;
      esac
    done
  done
}

tail=; watcher=
while IFS= read -r word; do
  case "$word" in
    manifest\ *) take "${word#manifest }";;
    go|go\ *) if [ -d "$dir" ]; then follow; else start "${word#go}"; fi;;
    # A client that was suspended does not hear of its end before it goes on.
    stop) family && { kill $found; kill -CONT $found; } 2>/dev/null;;
    kill) family && kill -KILL $found 2>/dev/null;;
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
