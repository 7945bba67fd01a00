//! The same packets through netfw and through nftables, in twin labs: what comes out is the same, but for the differences
//! that [`differences`] explains.
//!
//! Packets are random: opened and odd ones from both sides, answers to what came out, more of the same, and ICMP errors about
//! it. The seeds are always the same, so that a failure is one; `NETFW_SEED` tries another.

mod admission;
mod chance;
mod differences;
mod normal;
mod script;
mod twin;

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::{Engine, Lab},
    netfw::Netfw,
    packet::{Packet, Side},
    rules,
};
use proptest::strategy::{Strategy, ValueTree};

use self::{
    chance::VARIABLE,
    differences::{Case, explanation},
    normal::Ports,
    script::{Script, Step},
    twin::Twin,
};

/// Packets sent in each engine.
const STEPS: usize = 3000;

/// What both gateways do. Nothing here depends on chance but ports that are not free.
const RULES: &str = r#"
[masquerade]
from = ["lan"]
[[port-forward]]
name = "fence"
protocol = "udp"
port = 9
to = ["worker1:9"]
[[port-forward]]
name = "one-to-one"
protocol = ["tcp", "udp"]
port = "50-52"
to = ["worker1:60", "worker2:60", "worker3:60"]
spread = "one-to-one"
[[port-forward]]
name = "for some"
protocol = ["tcp", "udp"]
port = 53
to = ["worker4:70"]
from = ["office"]
[[rule]]
action = "accept"
protocol = ["tcp", "udp"]
port = 54
[[rule]]
chain = "forward"
action = "accept"
protocol = ["tcp", "udp"]
from = ["office"]
to = ["worker2"]
port = 60
"#;

/// The same for nftables.
const NFTABLES: &str = r#"
table inet gateway {
    chain translate {
        type nat hook prerouting priority dstnat;
        ip daddr 192.0.2.1 udp dport 9 dnat ip to 192.168.80.3:9
        ip daddr 192.0.2.1 meta l4proto { tcp, udp } th dport 50 dnat ip to 192.168.80.3:60
        ip daddr 192.0.2.1 meta l4proto { tcp, udp } th dport 51 dnat ip to 192.168.80.4:60
        ip daddr 192.0.2.1 meta l4proto { tcp, udp } th dport 52 dnat ip to 192.168.80.5:60
        ip saddr 203.0.113.0/24 ip daddr 192.0.2.1 meta l4proto { tcp, udp } th dport 53 dnat ip to 192.168.80.6:70
        ip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 50 dnat ip6 to [fd00:80::3]:60
        ip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 51 dnat ip6 to [fd00:80::4]:60
        ip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 52 dnat ip6 to [fd00:80::5]:60
        ip6 saddr 2001:db8:1::/48 ip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 53 dnat ip6 to [fd00:80::6]:70
    }
    chain hide {
        type nat hook postrouting priority srcnat;
        iifname "eth1" oifname "eth0" masquerade
        iifname "eth1" oifname "eth1" ct status dnat masquerade
    }
    chain input {
        type filter hook input priority filter; policy drop;
        icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
        ct state invalid drop
        ct state established,related accept
        meta l4proto { tcp, udp } th dport 54 accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        ct status dnat accept
        iifname "eth1" oifname "eth0" accept
        ip saddr 203.0.113.0/24 ip daddr 192.168.80.4 meta l4proto { tcp, udp } th dport 60 accept
        ip6 saddr 2001:db8:1::/48 ip6 daddr fd00:80::4 meta l4proto { tcp, udp } th dport 60 accept
    }
}
"#;

/// Reasons for which netfw may drop such packets.
const REASONS: [&str; 9] = [
    "policy-input",
    "policy-forward",
    "bad-tcp-flags",
    "icmp-unrelated",
    "ttl-exceeded",
    "spoofed",
    "martian",
    "no-free-port",
    "untranslatable",
];

/// What was sent, and what came out of each gateway.
struct Exchange {
    side: Side,
    sent: [Packet; 2],
    left: [Vec<(Side, Packet)>; 2],
    /// The step that began the conversation.
    root: usize,
}

#[test]
fn netfw_and_nftables_agree() -> Result<()> {
    for &engine in Engine::chosen()? {
        for seed in chance::seeds()? {
            play(seed, engine).with_context(|| format!("{VARIABLE}={seed}, engine {engine}"))?;
        }
    }
    Ok(())
}

fn play(seed: u64, engine: Engine) -> Result<()> {
    let labs = [Lab::two_armed(engine)?, Lab::two_armed(engine)?];
    let netfw = Netfw::up(&labs[0], &rules::two_armed(RULES))?;
    twin::forward_with_nftables(&labs[1], NFTABLES)?;
    println!("{VARIABLE}={seed}, engine {engine}");
    compare(seed, [Twin::open(&labs[0])?, Twin::open(&labs[1])?])?;
    for reason in REASONS {
        netfw.expect_drops(reason, ..);
    }
    netfw.finish()
}

/// Plays one random script to both.
fn compare(seed: u64, mut twins: [Twin; 2]) -> Result<()> {
    let mut runner = chance::runner(seed);
    let mut ports = [Ports::default(), Ports::default()];
    let mut script = Script::default();
    let mut tally = differences::Tally::default();
    for number in 0..STEPS {
        let step = script::step().new_tree(&mut runner).expect("nothing is filtered").current();
        let Some((side, sent, root)) = script.packets(&step, number) else { continue };
        let hidden = script.opened_from(root).unwrap_or(side) == Side::Inside;
        let mut left = [Vec::new(), Vec::new()];
        for (n, twin) in twins.iter_mut().enumerate() {
            left[n] = twin.pass(side, &sent[n]).with_context(|| format!("step {number}: {step:?}"))?;
            ports[n].learn(&sent[n], &left[n], hidden && side == Side::Inside);
        }
        ensure!(ports[0].keeps_as_many_as(&ports[1], &sent[0]), "step {number}: {step:?}: the port was free");
        let seen = [ports[0].normal(&left[0]), ports[1].normal(&left[1])];
        let exchange = Exchange { side, sent, left, root };
        if seen[0] != seen[1] {
            let case = Case { exchange: &exchange, seen: &seen, script: &script };
            let why = explanation(&case);
            ensure!(why.is_some(), report(number, &step, &exchange, &seen, &script));
            tally.add(why.unwrap_or_default());
            script.forget(exchange);
        } else {
            tally.same(&exchange);
            script.remember(exchange);
        }
    }
    println!("{tally}");
    tally.check()
}

fn report(
    number: usize,
    step: &Step,
    exchange: &Exchange,
    seen: &[Vec<(Side, Packet)>; 2],
    script: &Script,
) -> String {
    let line = |(side, packet): &(Side, Packet)| {
        let Packet { source, destination, ttl, body, payload, .. } = packet;
        let payload = if normal::is_error(packet) {
            String::from_utf8_lossy(payload).into_owned()
        } else {
            format!("{} bytes", payload.len())
        };
        format!("{side:?} {source} > {destination} ttl {ttl} {body:?} {payload}")
    };
    let lines = |packets: &[(Side, Packet)]| packets.iter().map(line).collect::<Vec<_>>().join("\n  ");
    let history: Vec<String> = script
        .history(exchange.root)
        .map(|before| {
            format!("  {}\n    {}", line(&(before.side, before.sent[0].clone())), lines(&before.left[0]))
        })
        .collect();
    format!(
        "step {number}, {step:?}: they differ\nbefore:\n{}\nsent:\n  {}\nnetfw:\n  {}\nnftables:\n  {}",
        history.join("\n"),
        line(&(exchange.side, exchange.sent[0].clone())),
        lines(&seen[0]),
        lines(&seen[1])
    )
}
