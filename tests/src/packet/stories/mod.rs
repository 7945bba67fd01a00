//! What a gateway must do, told with packets. Each story runs in memory and in the kernel.

pub mod block;
pub mod change;
pub mod egress;
pub mod failsafe;
pub mod firewall;
pub mod hairpin;
pub mod health;
pub mod icmp;
pub mod link;
pub mod malformed;
pub mod mapping;
pub mod masquerade;
pub mod port_forward;
pub mod protocols;
pub mod tcp;
pub mod trial;
pub mod ttl;
pub mod tunnel;
pub mod udp;

/// Hands the list of all stories to a macro, as `module::story, …`.
#[macro_export]
macro_rules! for_each_story {
    ($each:ident) => {
        $each! {
            port_forward::a_single_port,
            port_forward::one_to_one,
            port_forward::ranges_kept_and_shifted,
            port_forward::tcp_and_udp,
            port_forward::only_for_some,
            port_forward::only_at_one_address,
            port_forward::balanced_in_turn,
            port_forward::balanced_by_source,
            port_forward::balanced_by_chance,
            port_forward::two_forwards_to_one_target,
            port_forward::to_the_master_itself,
            port_forward::source_nat_always,
            masquerade::the_lan_goes_out,
            masquerade::others_do_not,
            masquerade::several_addresses,
            masquerade::the_same_source_port,
            masquerade::one_port_for_many_servers,
            masquerade::ports_run_out,
            masquerade::every_port_of_a_small_range,
            masquerade::privileged_ports_stay_privileged,
            masquerade::no_port_shadowing,
            masquerade::what_the_master_draws_is_not_forwarded,
            masquerade::the_same_echo_identifier,
            masquerade::the_master_shares_its_address,
            masquerade::what_cannot_be_translated,
            protocols::sctp_by_address,
            protocols::rules_for_sctp,
            protocols::tunnels_by_address,
            protocols::signed_addresses,
            protocols::unknown_protocols_by_policy,
            tunnel::an_encapsulated_route,
            tunnel::a_forward_into_a_tunnel,
            mapping::one_port_towards_everyone,
            mapping::one_identifier_towards_everyone,
            mapping::a_mapped_port_is_kept_from_others,
            mapping::strangers_are_kept_out,
            mapping::strangers_are_let_in,
            mapping::rules_come_first,
            mapping::a_closed_filter_cuts,
            mapping::hairpin_through_a_mapping,
            egress::handled_already,
            egress::routed_from_elsewhere,
            egress::routed_and_hidden,
            block::whom_the_list_names,
            block::a_list_cuts_live_flows,
            block::a_ban_comes_and_goes,
            failsafe::nothing_shuts_it,
            failsafe::errors_about_it_pass,
            failsafe::no_lan_host_takes_its_port,
            firewall::first_match_wins,
            firewall::rules_see_the_target,
            firewall::the_masters_services,
            firewall::the_master_as_a_client,
            firewall::reject_tcp,
            firewall::reject_udp,
            firewall::rules_of_an_interface,
            tcp::a_syn_is_repeated,
            tcp::a_syn_into_a_live_connection,
            tcp::closing,
            tcp::ports_are_used_again,
            tcp::resets,
            tcp::forged_packets,
            tcp::a_refusal,
            tcp::both_open_at_once,
            tcp::picked_up_in_the_middle,
            tcp::flags_of_scans,
            tcp::the_segment_size,
            udp::without_a_checksum,
            udp::a_checksum_of_zero,
            udp::lengths,
            udp::fragments_in_order,
            udp::a_fragment_before_its_first,
            udp::fragments_of_a_refused_packet,
            icmp::about_a_masqueraded_packet,
            icmp::about_a_masqueraded_echo,
            icmp::about_a_forwarded_packet,
            icmp::about_the_masters_own,
            icmp::about_nothing,
            icmp::unasked_replies,
            icmp::a_quote_in_the_padding,
            ttl::one_hop_older,
            ttl::the_last_hop,
            ttl::the_packet_is_quoted,
            ttl::never_about_errors,
            hairpin::through_the_outside_address,
            hairpin::balanced,
            hairpin::as_source_nat_says,
            hairpin::a_client_beside_the_target,
            link::discovery,
            link::dhcp,
            link::frames_for_others,
            malformed::cut_off,
            malformed::ends_early,
            malformed::broken_ip_headers,
            malformed::broken_transport_headers,
            malformed::martians,
            malformed::spoofed,
            malformed::spoofing_allowed,
            malformed::link_local,
            malformed::ip_options,
            malformed::extension_headers,
            malformed::the_longest_chain,
            malformed::lying_extension_headers,
            change::a_removed_forward_is_cut,
            change::a_changed_target_is_cut,
            change::a_datagram_of_a_cut_flow,
            change::nothing_is_lost_without_need,
            change::kept_on_demand,
            health::a_share_is_taken_over,
            health::other_clients_stay,
            health::chance_avoids_who_is_down,
            health::live_flows_go_on,
            health::nobody_left,
            health::strangers_learn_nothing,
            health::one_to_one_has_no_substitute,
            health::drained,
            change::a_removed_masquerade_is_cut,
            trial::a_refused_flow_is_revived,
            trial::a_refused_flow_is_cut_at_last,
            trial::an_admitted_flow_goes_on,
            trial::another_candidate_revives,
            trial::a_flow_of_the_candidate_ends_with_it,
            trial::a_kept_flow_is_not_lost,
        }
    };
}
