#!/bin/busybox sh
# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=busybox
#
# Firmware and boot loader of a light node. It is process 1 of the node's own PID, mount, UTS and network
# namespaces and ends by becoming the node's system. Its standard output is the serial console.
#
# From the hub, in the environment:
#   NODE IP HEX MAC SERVER   identity and addresses       SECTORS  size of the disk
#   DISK DEVICES TREES WORK  disk file, /dev tree, memory image trees, empty folder to mount on
#   LAUNCH NESTED            folder of what starts the system; 1: in a nested user namespace
#   DELAY FAULT LOSS         seconds of self test; ordered fault; per cent of datagrams lost
#   ROOM                     KiB that fit on a disk that is too small
#   DEBUGFS                  the program that reads ext4
# Standard input is a pipe to the hub that takes one line: our pid as the hub sees it (/proc is still the hub's).

read -r pid _ < /proc/self/stat
echo "$pid" >&0
exec < /dev/null 2>&1
umask 022

say() { echo "[$NODE] $*"; }

hang() {
    say "$*"
    say "halted"
    exec sleep 2147483647
}

# ---------------------------------------------------------------- network boot

fetch() { tftp -g -r "$1" -l "$2" "$SERVER" 2> "$WORK/tftp.error"; }

# Look for a configuration in the order of pxelinux: hardware address, IP in hex, ever shorter, default.
find_config() {
    local name hex
    name=01-$(echo "$MAC" | tr : -)
    hex=$HEX
    while :; do
        if fetch "pxelinux.cfg/$name" "$WORK/config"; then
            say "PXE: TFTP pxelinux.cfg/$name"
            return 0
        fi
        case $(cat "$WORK/tftp.error") in
        *"not found"* | *"ermission"* | *"annot access"*) ;;
        *)
            say "PXE-E32: TFTP open timeout: $(cat "$WORK/tftp.error")"
            return 1
            ;;
        esac
        case $name in
        default)
            say "PXE: no configuration found"
            return 1
            ;;
        esac
        if [ -n "$hex" ]; then
            name=$hex
            hex=${hex%?}
        else
            name=default
        fi
    done
}

# Print the entry that DEFAULT names: "local", or "kernel FILE".
default_entry() {
    awk '
        { sub(/\r$/, "") }
        { word = tolower($1) }
        word == "default" { chosen = $2 }
        word == "label" { label = $2 }
        word == "kernel" || word == "linux" { kernel[label] = $2 }
        word == "localboot" { disk[label] = 1 }
        END {
            if (chosen in kernel) print "kernel", kernel[chosen]
            else if (chosen in disk) print "local"
            else print "kernel", chosen
        }' "$1"
}

network_boot() {
    local action kernel magic tree runtime
    find_config || return 1
    read -r action kernel << END
$(default_entry "$WORK/config")
END
    [ "$action" = kernel ] || return 1
    fetch "$kernel" "$WORK/kernel" || hang "Could not find kernel image: $kernel"
    read -r magic tree runtime < "$WORK/kernel"
    [ "$magic" = orbit-testbed-memory-image ] || hang "Invalid or corrupt kernel image: $kernel"
    case "$tree$runtime" in
    *[!A-Za-z0-9._-]*) hang "Invalid or corrupt kernel image: $kernel" ;;
    esac
    [ -d "$TREES/$tree" ] && [ -d "$TREES/$runtime" ] || hang "Memory image not available: $tree $runtime"
    say "PXE: TFTP $kernel: memory image $tree"
    mkdir "$WORK/upper" "$WORK/work"
    mount -t overlay -o "lowerdir=$TREES/$tree:$TREES/$runtime,upperdir=$WORK/upper,workdir=$WORK/work" \
        overlay "$WORK/root" 2> /dev/null || copy_tree "$tree" "$runtime"
    case $FAULT in
    # Another kind of memory image: one that the image of a run was not made for.
    wrong-memory) echo diagnostics-1.0 > "$WORK/root/.omf_imageid" ;;
    client-missing) rm -f "$WORK/root/usr/sbin/frisbee" "$WORK/root/usr/bin/frisbee" ;;
    esac
}

# No overlay for us on this kernel: a copy of the system, the runtime as it is.
copy_tree() {
    mount --bind "$WORK/root" "$WORK/root" && cp -a "$TREES/$1/." "$WORK/root" &&
        mount --bind "$TREES/$2/usr/lib/orbit-python" "$WORK/root/usr/lib/orbit-python" ||
        hang "Cannot unpack the memory image"
}

# ---------------------------------------------------------------- disk boot

disk_boot() {
    local mbr entry active start errors
    say "Booting from local disk..."
    [ "$FAULT" != disk-dead ] || hang "Disk error: the disk does not spin up"
    mbr=$(hexdump -v -n 512 -e '512/1 "%02x"' "$DISK")
    [ "${mbr:1020:4}" = 55aa ] || hang "Missing operating system: no boot signature on the disk"
    active=
    for entry in "${mbr:892:32}" "${mbr:924:32}" "${mbr:956:32}" "${mbr:988:32}"; do
        case $entry in
        80*)
            [ -z "$active" ] || hang "Invalid partition table: two active partitions"
            active=$entry
            ;;
        00*) ;;
        *) hang "Invalid partition table" ;;
        esac
    done
    [ -n "$active" ] || hang "Missing operating system: no active partition"
    [ "${active:8:2}" = 83 ] || hang "Missing operating system: the active partition has type ${active:8:2}, not 83"
    entry=${active:16:8}
    start=$((0x${entry:6:2}${entry:4:2}${entry:2:2}${entry:0:2}))
    [ "$start" -gt 0 ] && [ "$start" -lt "$SECTORS" ] || hang "Invalid partition table: start $start"
    mount --bind "$WORK/root" "$WORK/root"
    # Owners cannot be kept in a user namespace of one id; everything else debugfs says is worth reading.
    errors=$("$DEBUGFS" -R "rdump / $WORK/root" "$DISK?offset=$((start * 512))" 2>&1 > /dev/null |
        grep -v -e '^debugfs ' -e 'changing ownership' -e '^$')
    [ -z "$errors" ] || say "$errors"
    [ -x "$WORK/root/sbin/init" ] || hang "Kernel panic: no init on the file system at sector $start"
    say "disk: file system at sector $start"
}

# ---------------------------------------------------------------- the kernel's part

CAPABILITIES=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+net_bind_service,+net_raw,+sys_chroot

prepare_system() {
    local root=$WORK/root id
    cd "$root" || hang "Cannot enter the root file system"
    mkdir -p dev proc sys tmp run mnt etc
    mount --rbind "$DEVICES" dev &&
        mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts &&
        mount --bind "$DISK" dev/sda &&
        mount -t proc proc proc || hang "Kernel panic: cannot mount"
    [ "$FAULT" != disk-missing ] || mount --bind "$DEVICES/null" dev/sda
    read -r id < /proc/sys/kernel/random/uuid
    echo "$id" > "$WORK/boot_id"
    echo "BOOT_IMAGE=$1 ip=$IP:$SERVER:$SERVER:255.255.0.0 BOOTIF=01-$MAC hostname=$NODE${FAULT:+ orbit.fault=$FAULT}" \
        > "$WORK/cmdline"
    mount --bind "$WORK/boot_id" proc/sys/kernel/random/boot_id &&
        mount --bind "$WORK/cmdline" proc/cmdline || hang "Kernel panic: cannot mount"
    mkdir -p sys/block/sda/device sys/class/net/eth0
    echo "$SECTORS" > sys/block/sda/size
    echo "ORBIT light disk" > sys/block/sda/device/model
    echo "LIGHT-$HEX" > sys/block/sda/device/serial
    echo "$MAC" > sys/class/net/eth0/address
    hostname "$NODE"
    echo "$NODE" > etc/hostname
    echo "127.0.0.1 localhost
$IP $NODE
$SERVER pxe frisbee cmc console" > etc/hosts
    echo "ORBIT_TESTBED_LOSS=$LOSS; export ORBIT_TESTBED_LOSS" > etc/orbit-node.env
    # The one id we have is 0 outside and must not be 0 inside: no login server can change groups as uid 0 of
    # such a namespace. A nested namespace calls it 1000, and the system calls 1000 root.
    [ "$NESTED" = 0 ] || sed -i -e "s/^root:\([^:]*\):0:0:/root:\1:1000:1000:/" -e "s/^root:\([^:]*\):0:/root:\1:1000:/" etc/passwd etc/group
}

start_system() {
    mkdir -p run/launch && mount --bind "$LAUNCH" run/launch || hang "Kernel panic: cannot mount"
    set -- /run/launch/ld.so --library-path /run/launch
    if [ "$NESTED" = 1 ]; then
        set -- "$@" /run/launch/unshare --user --map-user=1000 --map-group=1000 -- /sbin/init
    else
        # Real root: leave it what a login server and file work need, nothing that reaches the machine around.
        set -- "$@" /run/launch/setpriv --inh-caps=-all --bounding-set="$CAPABILITIES" /sbin/init
    fi
    # A user namespace cannot be made inside a chroot, so the root itself has to change.
    pivot_root . mnt && cd / && umount -l /mnt || hang "Kernel panic: cannot change the root file system"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TERM=linux "$@"
}

# A disk that promises more than it has: thin provisioning gone wrong. The file system it lies on is full first,
# and so it is the kernel that says ENOSPC.
thin_disk() {
    mkdir "$WORK/thin" && mount -t tmpfs -o "mode=755,size=${ROOM}k" tmpfs "$WORK/thin" || hang "self test: no disk"
    DISK=$WORK/thin/disk
    truncate -s $((SECTORS * 512)) "$DISK"
}

# ---------------------------------------------------------------- power on

say "power on"
# The adapter forgets the address of the last boot: until the self test is over, the node answers nobody.
ifconfig eth0 0.0.0.0 down
mount -t tmpfs -o mode=755,size=512m tmpfs "$WORK" && mkdir "$WORK/root" || hang "self test: no memory"
[ "$DELAY" = 0 ] || sleep "$DELAY"
[ "$FAULT" != never-boot ] || hang "self test failed"
[ "$FAULT" != disk-full ] || thin_disk
ifconfig lo up
ifconfig eth0 "$IP" netmask 255.255.0.0 up || hang "PXE-E61: media test failure"
ip route replace 239.0.0.0/8 dev eth0
# No privilege is left when the login server binds port 22; connections of the last power cycle are not kept up.
echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
echo 1 > /proc/sys/net/ipv4/tcp_orphan_retries
if [ "$FAULT" != boot-disk ] && network_boot; then
    prepare_system memory
else
    disk_boot
    prepare_system disk
fi
start_system
