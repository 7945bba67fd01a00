//! How units that somebody else ships say when they start: the lines of Debian's packages that are about order.

/// What gives interfaces their addresses. Most wait for `network-pre.target`; dhcpcd does not.
pub(crate) const MANAGERS: [(&str, &str); 5] = [
    (
        "systemd-networkd.service",
        "DefaultDependencies=no\nConflicts=shutdown.target\nWants=network.target\n\
         After=systemd-udevd.service network-pre.target systemd-sysusers.service systemd-sysctl.service\n\
         Before=network.target multi-user.target shutdown.target\n",
    ),
    (
        "networking.service",
        "DefaultDependencies=no\nConflicts=shutdown.target\nWants=network.target\n\
         After=local-fs.target network-pre.target apparmor.service systemd-sysctl.service\n\
         Before=network.target shutdown.target network-online.target\n",
    ),
    (
        "NetworkManager.service",
        "Wants=network.target\nAfter=network-pre.target dbus.service\nBefore=network.target\n",
    ),
    (
        "connman.service",
        "DefaultDependencies=no\nConflicts=shutdown.target\nWants=network.target\n\
         After=dbus.service network-pre.target systemd-sysusers.service\n\
         Before=network.target multi-user.target shutdown.target\n",
    ),
    ("dhcpcd.service", "Wants=network.target\nBefore=network.target\n"),
];

/// Who listens: the SSH server, and one that says nothing of the network.
pub(crate) const SERVERS: [(&str, &str); 2] =
    [("ssh.service", "After=network.target auditd.service\n"), ("plain.service", "")];

/// A socket that the service manager itself listens on.
pub(crate) const SOCKET: (&str, &str) = (
    "early.socket",
    "[Unit]\nBefore=sockets.target\n[Socket]\nListenStream=22\nAccept=yes\n[Install]\nWantedBy=sockets.target\n",
);
/// What that socket starts.
pub(crate) const BEHIND_SOCKET: (&str, &str) = ("early@.service", "[Service]\nExecStart=/bin/true\n");

/// A file system that the start of the machine does not insist on.
pub(crate) const VAR: (&str, &str) = (
    "var.mount",
    "[Mount]\nWhat=/dev/vdb\nWhere=/var\nOptions=nofail\n\
     [Install]\nWantedBy=multi-user.target\n",
);
