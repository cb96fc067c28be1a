//! System calls, concern by concern: a guest prints what each gives back, natively and here.

mod common;

use common::{guest, same};

#[test]
fn identities_change_and_decide_as_on_the_host() {
    same(&[guest("ids")]);
}

#[test]
fn prctl_answers_as_the_hosts_does() {
    same(&[guest("prctl")]);
}

#[test]
fn shared_memory_lives_and_dies_as_on_the_host() {
    same(&[guest("shm")]);
}

#[test]
fn semaphores_and_messages_pass_as_on_the_host() {
    same(&[guest("sem")]);
}

#[test]
fn timers_run_out_and_descriptors_tell_as_on_the_host() {
    same(&[guest("timers")]);
}

#[test]
fn other_processes_memory_is_reached_as_on_the_host() {
    same(&[guest("process_vm")]);
}
