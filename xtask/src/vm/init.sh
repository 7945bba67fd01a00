#!/bin/busybox sh
# First and only program of the virtual machine: prepares what a running system has, runs the tests or measurements, says how they went.
/bin/busybox mkdir -p /usr/local/bin
/bin/busybox --install -s /usr/local/bin
export PATH=/usr/sbin:/usr/bin:/usr/local/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tracefs tracefs /sys/kernel/tracing
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
ln -s /usr/local/bin/modprobe /usr/sbin/modprobe
mkdir -p /run/sshd /run/netns
ip link set lo up
echo "kernel $(uname -r)"
/usr/bin/bash /tests/run
echo "netfw-vm: status $?"
poweroff -f
