//! `[block]` and bans.

use crate::packet::{ACK, Gateway, Packet, SYN, Side};

const OPEN: &str = r#"
[policy]
input = "accept"

[failsafe]
ssh-port = 22
from = ["office"]

[masquerade]
from = ["lan"]

[[port-forward]]
name = "dns"
protocol = ["udp", "tcp"]
port = 53
to = ["worker1:5353"]
"#;

/// Rules that block the stranger, and networks of the master and of the LAN beside it.
fn listed() -> String {
    format!(
        "{OPEN}[block]\nfrom = [\"198.51.100.0/25\", \"!198.51.100.11\", \"192.0.2.0/24\", \"2001:db8:2::/64\", \
         \"!2001:db8:2::11\", \"2001:db8::/64\"]\n"
    )
}

/// Whoever is listed reaches nothing and is reached by nobody; the master's own addresses are never meant.
pub fn whom_the_list_names(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(&listed());
    let query = |from| Packet::udp(world.at(from, 4000), world.at("master", 53));
    gateway.outside(&query("stranger")).dropped("blocked");
    gateway.outside(&query("stranger").to(world.at("master", 7))).dropped("blocked");
    gateway.outside(&Packet::echo(world.at("stranger", 0), world.at("master", 0), 7)).dropped("blocked");
    gateway.outside(&query("client")).forwarded_somehow();
    let out = Packet::udp(world.at("worker2", 4000), world.at("stranger", 53));
    gateway.inside(&out).dropped("blocked");
    gateway.send(&out.from(world.at("master", 4000))).dropped("blocked");
    let to_client = Packet::udp(world.at("master", 4000), world.at("client", 53));
    gateway.send(&to_client).accepted(&to_client);
}

/// A list that comes into force cuts live flows with whom it names, whoever opened them, and no others.
pub fn a_list_cuts_live_flows(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(OPEN);
    let query = |from| Packet::udp(world.at(from, 4000), world.at("master", 53));
    let answers =
        ["stranger", "client"].map(|from| gateway.outside(&query(from)).forwarded_somehow().answer());
    let out = Packet::tcp(world.at("worker2", 4000), world.at("stranger", 80), SYN);
    let back = gateway.inside(&out).forwarded_somehow().answer().flags(SYN | ACK);
    gateway.apply(&listed());
    gateway.inside(&answers[0]).dropped("blocked");
    gateway.outside(&query("stranger")).dropped("blocked");
    gateway.inside(&answers[1]).forwarded_somehow();
    gateway.outside(&query("client")).forwarded_somehow();
    // Who sent from inside is told.
    gateway.inside(&out.flags(ACK)).answered("blocked");
    gateway.outside(&back).dropped("blocked");
}

/// A list on trial holds at once; flows that it has suspended live again when it is taken back, and those with others go on.
pub fn a_list_on_trial(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(OPEN);
    let query = |from| Packet::udp(world.at(from, 4000), world.at("master", 53));
    let answers =
        ["stranger", "client"].map(|from| gateway.outside(&query(from)).forwarded_somehow().answer());
    gateway.try_out(&listed());
    gateway.inside(&answers[0]).dropped("blocked");
    gateway.outside(&query("stranger")).dropped("blocked");
    gateway.outside(&query("stranger").from(world.at("stranger", 4001))).dropped("blocked");
    gateway.inside(&answers[1]).forwarded_somehow();
    gateway.roll_back();
    gateway.inside(&answers[0]).forwarded_somehow();
    gateway.outside(&query("stranger")).forwarded_somehow();
    gateway.try_out(&listed());
    gateway.confirm();
    gateway.inside(&answers[0]).dropped("blocked");
    gateway.outside(&query("stranger")).dropped("blocked");
    gateway.outside(&query("client")).forwarded_somehow();
}

/// A ban needs no change of the rules: it cuts at once, and lets go at once.
pub fn a_ban_comes_and_goes(gateway: &mut Gateway) {
    let world = gateway.world;
    gateway.apply(OPEN);
    let query = |from| Packet::udp(world.at(from, 4000), world.at("master", 53));
    let answer = gateway.outside(&query("client")).forwarded_somehow().answer();
    gateway.inside(&answer).forwarded_somehow();
    gateway.outside(&query("stranger")).forwarded_somehow();
    gateway.ban(world.host("client"));
    gateway.outside(&query("client")).dropped("banned");
    gateway.inside(&answer).dropped("banned");
    gateway.outside(&query("client").from(world.at("client", 4001))).dropped("banned");
    gateway.outside(&query("stranger")).forwarded_somehow();
    // The fail-safe door is before all this.
    let door = Packet::tcp(world.at("client", 4000), world.at("master", 22), SYN);
    gateway.outside(&door).accepted(&door);
    gateway.unban(world.host("client"));
    let again = query("client");
    gateway.outside(&again).forwarded(Side::Inside, &again.to(world.at("worker1", 5353)).hop());
}
