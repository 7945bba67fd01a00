//! Which keys each part of the rules file has, with an example of each for the errors about it.

/// A key and an example of its value.
type Key = (&'static str, &'static str);

/// The keys of one part of the rules file.
#[derive(Debug)]
pub(super) struct Schema {
    /// The part as it is written, empty for the file itself.
    pub(super) header: &'static str,
    /// Its keys.
    pub(super) keys: &'static [Key],
    /// Keys that it will have.
    pub(super) later: &'static [&'static str],
}

impl Schema {
    /// Example of a value of `key`.
    pub(super) fn example(&self, key: &str) -> Option<&'static str> {
        self.keys.iter().find(|(name, _)| *name == key).map(|(_, example)| *example)
    }
}

pub(super) const FILE: Schema = Schema {
    header: "",
    keys: &[
        ("interfaces", "[interfaces]"),
        ("hosts", "[hosts]"),
        ("sets", "[sets]"),
        ("policy", "[policy]"),
        ("failsafe", "[failsafe]"),
        ("block", "[block]"),
        ("masquerade", "[masquerade] or [[masquerade]]"),
        ("port-forward", "[[port-forward]]"),
        ("rule", "[[rule]]"),
        ("timeouts", "[timeouts]"),
        ("flows", "[flows]"),
        ("engine", "[engine]"),
        ("reload", "[reload]"),
    ],
    later: &["metrics"],
};

pub(super) const INTERFACES: Schema = Schema {
    header: "[interfaces]",
    keys: &[
        ("external", r#"external = ["eth0"]"#),
        ("internal", r#"internal = ["eth1"]"#),
        ("anti-spoof", r#"anti-spoof = "strict""#),
    ],
    later: &[],
};

pub(super) const POLICY: Schema = Schema {
    header: "[policy]",
    keys: &[
        ("input", r#"input = "drop""#),
        ("forward", r#"forward = "drop""#),
        ("output", r#"output = "accept""#),
    ],
    later: &[],
};

pub(super) const FAILSAFE: Schema = Schema {
    header: "[failsafe]",
    keys: &[("ssh-port", "ssh-port = 22"), ("from", r#"from = ["203.0.113.0/24"]"#)],
    later: &[],
};

pub(super) const BLOCK: Schema =
    Schema { header: "[block]", keys: &[("from", r#"from = ["203.0.113.0/24"]"#)], later: &[] };

pub(super) const INCLUDE: Schema =
    Schema { header: "the set", keys: &[("file", r#"{ file = "blocked.txt" }"#)], later: &[] };

pub(super) const MASQUERADE: Schema = Schema {
    header: "[masquerade]",
    keys: &[
        ("from", r#"from = ["192.168.80.0/24"]"#),
        ("to", r#"to = ["198.51.100.1", "198.51.100.2"]"#),
        ("ports", r#"ports = "20000-60000""#),
        ("mapping", r#"mapping = "endpoint-independent""#),
        ("filtering", r#"filtering = "endpoint-independent""#),
    ],
    later: &[],
};

pub(super) const PORT_FORWARD: Schema = Schema {
    header: "[[port-forward]]",
    keys: &[
        ("name", r#"name = "ssh""#),
        ("enabled", "enabled = false"),
        ("protocol", r#"protocol = "tcp""#),
        ("port", r#"port = 2201, port = "2201-2204" or a list of both"#),
        ("to", r#"to = "worker1:22" or a list of such targets"#),
        ("check", r#"check = { tcp = true, interval = "2s", rise = 2, fall = 3 }"#),
        ("from", r#"from = ["192.0.2.0/24"]"#),
        ("spread", r#"spread = "one-to-one""#),
        ("balance", r#"balance = "round-robin""#),
        ("address", r#"address = "198.51.100.1""#),
        ("source-nat", r#"source-nat = "auto""#),
        ("idle-timeout", r#"idle-timeout = "24h""#),
        ("syn-proxy", r#"syn-proxy = "auto""#),
    ],
    later: &[],
};

pub(super) const TARGET: Schema = Schema {
    header: "the target",
    keys: &[("target", r#"{ target = "worker1:22", drain = true }"#), ("drain", "drain = true")],
    later: &[],
};

pub(super) const CHECK: Schema = Schema {
    header: "the check",
    keys: &[
        ("tcp", "tcp = true"),
        ("http", r#"http = "/""#),
        ("banner", r#"banner = "SSH-""#),
        ("interval", r#"interval = "2s""#),
        ("rise", "rise = 2"),
        ("fall", "fall = 3"),
        ("port", "port = 22"),
        ("on-down", r#"on-down = "cut""#),
    ],
    later: &[],
};

pub(super) const RULE: Schema = Schema {
    header: "[[rule]]",
    keys: &[
        ("name", r#"name = "ssh to the master""#),
        ("enabled", "enabled = false"),
        ("chain", r#"chain = "input""#),
        ("action", r#"action = "accept""#),
        ("protocol", r#"protocol = "tcp""#),
        ("from", r#"from = ["192.0.2.0/24"]"#),
        ("to", r#"to = ["192.0.2.1"]"#),
        ("port", r#"port = 22, port = "8081-8084" or a list of both"#),
        ("from-port", r#"from-port = "1024-65535""#),
        ("icmp-type", r#"icmp-type = "echo-request""#),
        ("interface", r#"interface = "eth0" or a list of such names"#),
        ("port-forward", r#"port-forward = "ssh" or a list of such names"#),
        ("limit", r#"limit = { rate = "10/minute", burst = 20, per = "source" }"#),
        ("log", "log = true"),
    ],
    later: &[],
};

pub(super) const LIMIT: Schema = Schema {
    header: "the limit",
    keys: &[
        ("rate", r#"rate = "10/minute""#),
        ("burst", "burst = 20"),
        ("per", r#"per = "source" or per = "rule""#),
    ],
    later: &[],
};

pub(super) const TIMEOUTS: Schema = Schema {
    header: "[timeouts]",
    keys: &[
        ("tcp-established", r#"tcp-established = "2h4m""#),
        ("tcp-transitory", r#"tcp-transitory = "4m""#),
        ("tcp-opening", r#"tcp-opening = "4m""#),
        ("tcp-closed", r#"tcp-closed = "4m""#),
        ("udp", r#"udp = "5m""#),
        ("udp-unanswered", r#"udp-unanswered = "2m""#),
        ("icmp", r#"icmp = "60s""#),
        ("other", r#"other = "10m""#),
    ],
    later: &[],
};

pub(super) const FLOWS: Schema = Schema {
    header: "[flows]",
    keys: &[("capacity", "capacity = 262144"), ("on-change", r#"on-change = "cut""#)],
    later: &[],
};

pub(super) const ENGINE: Schema = Schema {
    header: "[engine]",
    keys: &[("mode", r#"mode = "auto""#), ("mss-clamp", "mss-clamp = true")],
    later: &[],
};

pub(super) const RELOAD: Schema = Schema {
    header: "[reload]",
    keys: &[("watch", "watch = true"), ("confirm", r#"confirm = "60s""#)],
    later: &[],
};
