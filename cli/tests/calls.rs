//! System calls, concern by concern: a guest prints what each gives back, natively and here.

mod common;

use common::{bsdvm, guest, same, text};

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
fn proc_says_of_a_process_what_the_hosts_does() {
    same(&[guest("proc")]);
}

/// What `ps` and its kin make of it: the guests' processes alone.
#[test]
fn process_tools_see_the_guests() {
    let script = "sleep 100 & ps -e -o comm= | sort; pgrep -c sleep; ps -o ppid= -p $! | tr -d ' ' | grep -cx $$; \
        ps -o stat=,args= -p $!; kill $!; free | wc -l; vmstat | wc -l; top -b -n1 | grep -c COMMAND";
    let output = bsdvm(&[], &["/bin/bash", "-c", script]);
    assert_eq!(text(&output.stderr), "");
    let expected = "bash\nps\nsleep\nsort\n1\n1\nS    sleep 100\n3\n3\n1\n";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn other_processes_memory_is_reached_as_on_the_host() {
    same(&[guest("process_vm")]);
}
