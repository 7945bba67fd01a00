//! What the virtual machine does with the test programs.

use crate::suites::Suite;

/// What runs unless other tests are asked for: the whole kernel ring, and of the lab a story of each kind. An emulated
/// processor verifies the programs for a quarter of a minute at each `netfw up`.
const SHORT: [(&str, &str); 4] = [
    ("kernel", ""),
    ("lab", "ssh_reaches"),
    ("port_forward", "is_translated"),
    ("ssh", "every_port a_session the_door"),
];
/// Spark takes four Java machines, a million prefixes much reading, and ten thousand packets under a hundred rule sets as many
/// compilations, which no emulated processor does in reasonable time.
const HARNESS: &str =
    "--test-threads=1 --skip spark --skip a_million_blocked_prefixes --skip explained_and_sent";

/// Asks the service manager, which is not in there and for which the kernel makes no difference.
const ELSEWHERE: &str = "service";

/// The shell script that runs them; its exit status is the result.
pub(crate) fn of(suites: &[Suite], filter: &[String]) -> String {
    let words = filter.join(" ");
    let here = suites.iter().filter(|suite| suite.name != ELSEWHERE);
    let asked = here.map(|suite| (suite.name.as_str(), words.as_str()));
    let chosen: Vec<_> = if filter.is_empty() { SHORT.to_vec() } else { asked.collect() };
    let mut script = String::from("export NETFW_BIN=/tests/netfw\nstatus=0\n");
    for (suite, words) in chosen {
        script += &format!("echo 'suite {suite}'\n/tests/{suite} {HARNESS} {words} || status=1\n");
    }
    script + "exit $status\n"
}
