//! What a person types.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};
use clap_complete::Shell;
use ipnet::IpNet;
use netfw_common::reason::Reason;

use super::explain::{End, end};
use crate::{
    config::{self, PROTOCOLS},
    daemon::instance::{Instance, RULES_FILE},
    report::flows::{Filter, STATES, Sort, Wanted},
};

/// A firewall and NAT manager for Linux gateways.
#[derive(Debug, Parser)]
#[command(name = "netfw", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// The instance to talk to.
    #[arg(long, global = true, env = "NETFW_INSTANCE", default_value = "default", value_name = "NAME")]
    pub instance: Instance,
    /// Print one JSON document.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load the datapath, apply the rules file, attach; then watch the file.
    Up(Up),
    /// Stop the daemon, detach everything, remove all state.
    Down,
    /// Interfaces, engines, rules in force, flows used.
    Status,
    /// Parse and validate a rules file.
    Check {
        /// The rules file.
        #[arg(default_value = RULES_FILE)]
        file: PathBuf,
    },
    /// What a reload would change, and which live flows it would end.
    Plan {
        /// The rules file; else that of the instance.
        file: Option<PathBuf>,
    },
    /// Apply the rules file now.
    Reload(Reload),
    /// Keep the rules that wait for confirmation.
    Confirm,
    /// Take the last change back, or go back to an earlier generation.
    Rollback(Rollback),
    /// The rules that have held.
    Generations,
    /// Counters of interfaces, rules, port-forwards and drop reasons.
    Stats {
        /// Show them again and again.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
        watch: Option<f64>,
    },
    /// The flow table.
    Flows(Flows),
    /// Dropped packets and new flows as they happen.
    Watch(Watch),
    /// Print a completion script for a shell.
    Completions {
        /// Which.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
    /// What becomes of a packet, and why.
    Explain(Explain),
    /// Drop everything from and to addresses, and end their live flows.
    Ban {
        /// Whom: addresses or CIDRs.
        #[arg(required = true, value_name = "ADDR", value_parser = net)]
        addresses: Vec<IpNet>,
        /// Only for this time, such as 1h.
        #[arg(long = "for", value_name = "TIME", value_parser = lifetime)]
        time: Option<Duration>,
    },
    /// Lift bans.
    Unban {
        /// Whose: addresses or CIDRs, as they were banned.
        #[arg(required = true, value_name = "ADDR", value_parser = net)]
        addresses: Vec<IpNet>,
    },
    /// Who is banned, and for how long.
    Bans,
    /// Not yet supported.
    #[command(hide = true)]
    Top(Words),
    /// Not yet supported.
    #[command(hide = true)]
    Doctor(Words),
}

/// `netfw up`.
#[derive(Debug, Args)]
pub struct Up {
    /// The rules file.
    #[arg(short, long, default_value = RULES_FILE, value_name = "FILE")]
    pub config: PathBuf,
    /// Return once the instance is ready.
    #[arg(short, long)]
    pub detach: bool,
    /// The machine starts: wait for interfaces that are missing; without valid rules, open only the fail-safe door.
    #[arg(long)]
    pub boot: bool,
    /// Log what the datapath does (slow).
    #[arg(long, env = "NETFW_DEBUG_DATAPATH", hide_env_values = true)]
    pub debug_datapath: bool,
    /// The second process of `--detach`.
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// `netfw reload`.
#[derive(Debug, Args)]
pub struct Reload {
    /// A candidate that becomes the rules file (once it is confirmed).
    pub file: Option<PathBuf>,
    /// Take the rules back unless they are confirmed in this time, such as 60s.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub confirm: Option<Duration>,
    /// A new SSH connection to this host confirms them.
    #[arg(long, requires = "confirm")]
    pub confirm_on_ssh: bool,
}

/// `netfw rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The generation to go back to, as `netfw generations` numbers them.
    #[arg(long, value_name = "GENERATION")]
    pub to: Option<u32>,
    /// Undo that unless it is confirmed in this time.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "to")]
    pub confirm: Option<Duration>,
}

/// `netfw flows`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Flows {
    /// Which.
    #[command(flatten)]
    pub filter: FlowFilter,
    /// In which order, and how many.
    #[command(flatten)]
    pub page: FlowPage,
    /// Show them again and again.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub watch: Option<f64>,
    /// What to do with them.
    #[command(subcommand)]
    pub action: Option<FlowAction>,
}

/// `netfw watch`. What fits everything that is set is shown; what comes too fast is counted.
#[derive(Debug, Args)]
pub struct Watch {
    /// Dropped packets, with the reason.
    #[arg(long)]
    pub drops: bool,
    /// New flows, with the rule that admitted them.
    #[arg(long)]
    pub new: bool,
    /// Sent from here.
    #[arg(long, value_name = "CIDR", value_parser = net)]
    pub from: Option<IpNet>,
    /// Sent to here, before or after translation.
    #[arg(long, value_name = "CIDR", value_parser = net)]
    pub to: Option<IpNet>,
    /// Dropped for this reason; may be repeated.
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.word())))]
    pub reason: Vec<String>,
    /// Of this protocol, by name or number.
    #[arg(long, value_parser = protocol)]
    pub protocol: Option<u8>,
}

/// `netfw explain`. The datapath itself is asked; nothing is sent, counted or remembered.
#[derive(Debug, Args)]
pub struct Explain {
    /// tcp, udp, icmp, icmpv6, or another by its number.
    #[arg(value_name = "PROTO", value_parser = protocol)]
    pub protocol: u8,
    /// Who sends it. Without a port: one that programs draw; of an echo request the port is its identifier.
    #[arg(value_name = "SRC[:PORT]", value_parser = end)]
    pub source: End,
    /// To whom.
    #[arg(value_name = "DST[:PORT]", value_parser = end)]
    pub destination: End,
    /// Where it arrives, if not where the route back to its source leads.
    #[arg(long = "in", value_name = "IFACE")]
    pub interface: Option<String>,
    /// Ask the rules in this file, which stay unapplied.
    #[arg(long, value_name = "FILE")]
    pub with: Option<PathBuf>,
}

/// What to do with flows.
#[derive(Debug, Subcommand)]
pub enum FlowAction {
    /// End them.
    Cut(FlowFilter),
}

/// Flows that a terminal shows unless told otherwise.
const SCREENFUL: usize = 1000;

/// What a terminal shows.
pub fn screenful() -> Wanted {
    Wanted { sort: Sort::Idle, reverse: false, offset: 0, limit: SCREENFUL }
}

/// Which part of the flows.
#[derive(Debug, Args)]
pub struct FlowPage {
    /// What comes first: the last to carry a packet, the biggest, the youngest.
    #[arg(long, value_enum, value_name = "KEY")]
    sort: Option<Sort>,
    /// The other way round.
    #[arg(long)]
    reverse: bool,
    /// Show so many at most (a table: 1000 if not said).
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Leave out so many of the first.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    offset: usize,
}

impl FlowPage {
    /// Whether all flows are asked for, in no order: then none need be kept.
    pub fn is_everything(&self) -> bool {
        self.sort.is_none() && !self.reverse && self.limit.is_none() && self.offset == 0
    }

    /// The page that is meant in a document, or in a table.
    pub fn wanted(&self, json: bool) -> Wanted {
        Wanted {
            sort: self.sort.unwrap_or(Sort::Idle),
            reverse: self.reverse,
            offset: self.offset,
            limit: self.limit.unwrap_or(if json { usize::MAX } else { SCREENFUL }),
        }
    }
}

/// Which flows.
#[derive(Debug, Args)]
pub struct FlowFilter {
    /// Translated by this port-forward.
    #[arg(long, value_name = "NAME")]
    port_forward: Option<String>,
    /// Opened from here.
    #[arg(long, value_name = "CIDR", value_parser = net)]
    from: Option<IpNet>,
    /// Leading to here, before or after translation.
    #[arg(long, value_name = "CIDR", value_parser = net)]
    to: Option<IpNet>,
    /// In this state.
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
}

impl From<&FlowFilter> for Filter {
    fn from(typed: &FlowFilter) -> Self {
        Self {
            port_forward: typed.port_forward.clone(),
            from: typed.from,
            to: typed.to,
            state: typed.state.clone(),
        }
    }
}

/// Words of a command that does nothing yet.
#[derive(Debug, Args)]
pub struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// An address or a CIDR.
fn net(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or(address).map_err(|_| "write an address or a CIDR".to_owned())
}

/// A time in which a person can confirm a change, as in the rules file.
fn time(text: &str) -> Result<Duration, String> {
    config::time_to_confirm(text)
        .ok_or_else(|| "write a time from \"1s\" to \"1d\", such as \"60s\"".to_owned())
}

/// How long a ban lasts, as times in the rules file.
fn lifetime(text: &str) -> Result<Duration, String> {
    config::lifetime(text).ok_or_else(|| "write a time such as \"30m\", \"1h\" or \"2d\"".to_owned())
}

/// A protocol by name or number.
fn protocol(text: &str) -> Result<u8, String> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "write tcp, udp, icmp, or a number up to 255".to_owned())
}

/// How often `--watch` shows again.
pub fn period(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(100))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn clap_finds_no_contradiction() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_instance_may_stand_anywhere() -> Result<(), clap::Error> {
        for line in ["netfw --instance lab status", "netfw status --instance lab"] {
            assert_eq!(parse(line)?.instance.to_string(), "lab");
        }
        assert!(parse("netfw --instance a/b status").is_err());
        Ok(())
    }

    /// The service's unit starts what a person could type: in the foreground, as when the machine starts.
    #[test]
    fn the_service_is_started_as_the_machine_starts() -> Result<(), clap::Error> {
        let unit = include_str!("../../../packaging/netfw.service");
        let lines: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
        let [line] = lines[..] else { panic!("{lines:?}") };
        let Command::Up(up) = parse(line)?.command else { panic!("{line}") };
        assert!(up.boot && !up.detach && !up.debug_datapath, "{line}");
        assert_eq!(up.config, PathBuf::from(RULES_FILE));
        Ok(())
    }

    #[test]
    fn watch_takes_seconds_or_none() -> Result<(), clap::Error> {
        for (line, expected) in
            [("netfw stats", None), ("netfw stats --watch", Some(1.0)), ("netfw stats --watch=5", Some(5.0))]
        {
            let Command::Stats { watch } = parse(line)?.command else { panic!("{line}") };
            assert_eq!(watch, expected, "{line}");
        }
        Ok(())
    }

    #[test]
    fn flows_are_filtered_with_and_without_cut() -> Result<(), clap::Error> {
        for line in [
            "netfw flows --from 10.0.0.0/8 --state closed",
            "netfw flows cut --from 10.0.0.1 --port-forward a",
            "netfw flows --sort bytes --reverse --limit 20 --offset 40",
            "netfw flows --watch=2 --limit 20",
        ] {
            parse(line)?;
        }
        assert!(parse("netfw flows --from nowhere").is_err());
        assert!(parse("netfw flows --state asleep").is_err());
        assert!(parse("netfw flows --limit -1").is_err());
        assert!(parse("netfw flows cut --limit 3").is_err(), "which three?");
        Ok(())
    }

    #[test]
    fn bans_take_addresses_and_a_time() -> Result<(), clap::Error> {
        parse("netfw ban 10.0.0.1 2001:db8::/32 --for 1h")?;
        parse("netfw unban 10.0.0.1")?;
        assert!(parse("netfw ban").is_err() && parse("netfw ban nobody").is_err());
        assert!(parse("netfw ban 10.0.0.1 --for ever").is_err());
        Ok(())
    }

    #[test]
    fn a_packet_is_described_in_words() -> Result<(), clap::Error> {
        parse("netfw explain tcp 10.0.0.1:5 10.0.0.2:22 --in eth0 --with new.toml")?;
        parse("netfw explain 47 2001:db8::1 2001:db8::2")?;
        assert!(parse("netfw explain tcp nobody 10.0.0.2:22").is_err());
        assert!(parse("netfw explain spoons 10.0.0.1 10.0.0.2").is_err());
        Ok(())
    }

    #[test]
    fn what_is_not_built_yet_takes_any_words() -> Result<(), clap::Error> {
        parse("netfw top --anything 5")?;
        Ok(())
    }
}
