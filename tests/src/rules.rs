//! Rules texts for the lab: what every gateway says about itself, to be followed by what a test is about.

/// Names of the hosts and networks of the lab.
const NAMES: &str = r#"
[hosts]
master  = ["192.168.80.2", "fd00:80::2"]
worker1 = ["192.168.80.3", "fd00:80::3"]
worker2 = ["192.168.80.4", "fd00:80::4"]
worker3 = ["192.168.80.5", "fd00:80::5"]
worker4 = ["192.168.80.6", "fd00:80::6"]

[sets]
office  = ["203.0.113.0/24", "2001:db8:1::/48"]
lan     = ["192.168.80.0/24", "fd00:80::/64"]
"#;

/// Rules of a two-armed master. Policies are the defaults: drop, drop, accept.
pub fn two_armed(more: &str) -> String {
    format!("[interfaces]\nexternal = [\"eth0\"]\ninternal = [\"eth1\"]\n{NAMES}{more}")
}

/// Rules of a one-armed master.
pub fn one_armed(more: &str) -> String {
    format!("[interfaces]\nexternal = [\"eth0\"]\n{NAMES}{more}")
}
