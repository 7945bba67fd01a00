//! A target speaks first after a loss, and the surroundings say what to make of it. (Scenario 17.)

use netfw_tests::packet::{ACK, Gateway, Packet, Side};

use crate::tell;

const LAN: &str = "[masquerade]\nfrom = [\"lan\"]\n";

/// A port-forward with one more line.
fn ssh(line: &str) -> String {
    format!(
        "[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 2201\nto = \"worker1:22\"\n{line}\n"
    )
}

fn word(gateway: &Gateway) -> Packet {
    Packet::tcp(gateway.world.at("worker1", 22), gateway.world.at("client", 4000), ACK)
}

/// Client and target behind one interface: the port-forward would have hidden the client, unless it says otherwise.
#[test]
fn one_arm() {
    tell(|gateway, machine| {
        let world = gateway.world;
        machine.borrow_mut().moved.insert(world.host("worker1"));
        let said = word(gateway);
        gateway.apply(&ssh(""));
        gateway.outside(&said).dropped("policy-forward");
        gateway.apply(&ssh("source-nat = \"never\""));
        gateway.outside(&said).forwarded(Side::Outside, &said.from(world.at("master", 2201)).hop());
    });
}

/// The client may have called any address of the interface, unless the port-forward names one.
#[test]
fn an_interface_of_several_addresses() {
    tell(|gateway, machine| {
        machine.borrow_mut().share_outside();
        let said = word(gateway);
        gateway.apply(&format!("{LAN}{}", ssh("")));
        gateway.inside(&said).dropped("answers-unknown");
        gateway.apply(&format!("{LAN}{}", ssh(r#"address = ["192.0.2.9", "2001:db8::9"]"#)));
        gateway.inside(&said).forwarded(Side::Outside, &said.from(gateway.world.at("second", 2201)).hop());
    });
}

/// A port-forward at an address that the master no longer has cannot have been called.
#[test]
fn an_address_that_is_gone() {
    tell(|gateway, machine| {
        machine.borrow_mut().disown(gateway.world.host("second"));
        gateway.apply(&format!("{LAN}{}", ssh(r#"address = ["192.0.2.9", "2001:db8::9"]"#)));
        let said = word(gateway);
        gateway.inside(&said).forwarded(Side::Outside, &said.from(gateway.world.at("master", 22)).hop());
    });
}

/// A word that cannot be carried enters nothing; its sender is told.
#[test]
fn what_cannot_be_carried() {
    tell(|gateway, machine| {
        machine.borrow_mut().mtu[Side::Outside as usize] = 1300;
        gateway.apply(&format!("{LAN}{}", ssh("")));
        let said = word(gateway);
        let _ = gateway.inside(&said.ttl(1)).answered("ttl-exceeded");
        let _ = gateway.inside(&said.sized(1290)).answered("too-big");
        assert_eq!(gateway.flows(), 0);
        gateway.inside(&said).forwarded(Side::Outside, &said.from(gateway.world.at("master", 2201)).hop());
    });
}

/// A spoofed word is none.
#[test]
fn a_false_target() {
    tell(|gateway, _| {
        gateway.apply(&format!("{LAN}{}", ssh("source-nat = \"never\"")));
        let said = word(gateway);
        gateway.outside(&said).dropped("spoofed");
    });
}
