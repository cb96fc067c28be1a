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
fn named_queues_keep_order_and_tell_as_on_the_host() {
    same(&[guest("mqueue")]);
}

#[test]
fn timers_run_out_and_descriptors_tell_as_on_the_host() {
    same(&[guest("timers")]);
}

#[test]
fn policies_and_priorities_are_kept_as_on_the_host() {
    same(&[guest("schedule")]);
}

#[test]
fn proc_says_of_a_process_what_the_hosts_does() {
    same(&[guest("proc")]);
}

/// What `ps` and its kin make of it: the guests' processes alone.
#[test]
fn process_tools_see_the_guests() {
    let script = "sleep 100 & until [ \"$(cat /proc/$!/comm)\" = sleep ]; do :; done; \
        ps -e -o comm= | grep -vxE 'bash|ps|sleep|grep'; ps -C sleep -o comm=; pgrep -c sleep; \
        ps -o ppid= -p $! | tr -d ' ' | grep -cx $$; ps -o args= -p $!; kill $!; \
        free | wc -l; vmstat | wc -l; top -b -n1 | grep -c COMMAND";
    let output = bsdvm(&[], &["/bin/bash", "-c", script]);
    assert_eq!(text(&output.stderr), "");
    let expected = "sleep\n1\n1\nsleep 100\n3\n3\n1\n";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn files_are_locked_limited_and_copied_as_on_the_host() {
    same(&[guest("files")]);
}

#[test]
fn edges_of_calls_are_the_hosts() {
    same(&[guest("edges")]);
}

#[test]
fn a_limit_of_size_is_the_guests_and_not_the_runners() {
    let script = "ulimit -S -f 0; echo x > /dev/null; echo \"$(ulimit -f)\"";
    same(&["/bin/bash", "-c", script]);
    let run = env!("CARGO_BIN_EXE_bsdvm");
    let hard = format!("ulimit -f 0; {run} run -- /bin/true 2>/dev/null; echo $? | cat");
    let output = common::native(&["/bin/bash", "-c", &hard]);
    // Who may not lift it has no room for the machine's memory.
    assert!(["0\n", "125\n"].contains(&text(&output.stdout).as_str()));
}

#[test]
fn other_processes_memory_is_reached_as_on_the_host() {
    same(&[guest("process_vm")]);
}
