//! Nobody gets in who may not, and whoever tries does no harm: each attempt is refused, is on the
//! record, and the coordinator serves on.

mod worker;
mod world;

use std::{
    io::{Read, Write},
    net::{Shutdown as Half, TcpStream},
};

use gapless_coordinator::Security;
use gapless_platform::{secret::Secret, tokens::Role};
use gapless_proto::{
    access::Access,
    v1::{self, worker_event::Event},
};
use serde_json::Value;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient};
use worker::{Wire, facts, hello};
use world::{Authority, PATIENCE, TokenFile, World, log, refusal, wait_for, with_certificate, with_token};

const JOB: &str = "\
job: numbers
steps:
  - name: count
    source: {sequence: {from: 0, to: 1000}}
    partition: {count: 1}
    sink: discard
";

fn submit(text: &str) -> v1::SubmitRequest {
    v1::SubmitRequest {
        job_text: text.to_string(),
        file_name: "job.yaml".to_string(),
        base_dir: "/".to_string(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_good_certificate_does_not_get_in() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let folder = World::folder();
    let security = Security {
        tls: ours.files(folder.path()),
        ..Security::default()
    };
    let world = World::start(folder, security).await;
    let alice = with_certificate(&ours, Some(ours.client("alice")));
    world.ask(&alice).await.expect("a good certificate");
    for (shown, to_client, on_record) in [
        (None, "CertificateRequired", "peer sent no certificates"),
        (Some(other.client("mallory")), "UnknownCA", "UnknownIssuer"),
        (Some(ours.expired("bob")), "CertificateExpired", "certificate expired"),
        (Some(ours.server()), "fatal alert", "extended key usage"),
    ] {
        let from = world.audit().len();
        let error = world.ask(&with_certificate(&ours, shown)).await.expect_err(on_record);
        assert!(error.contains(to_client), "{error}\nlacks {to_client}");
        let line = world.shown_the_door(from, "no TLS connection").await;
        let reason = line["reason"].as_str().expect("a reason");
        assert!(
            reason.to_lowercase().contains(&on_record.to_lowercase()),
            "{reason}\nlacks {on_record}"
        );
        assert_eq!(line["who"], "anonymous", "nothing of it is believed: {line}");
        world.ask(&alice).await.expect("it serves on");
    }
    // The other way round: a client that trusts another authority shows nothing of itself.
    let from = world.audit().len();
    let fooled = with_certificate(&other, Some(ours.client("carol")));
    let error = world.ask(&fooled).await.expect_err("another authority");
    assert!(error.contains("invalid peer certificate"), "{error}");
    world.shown_the_door(from, "no TLS connection").await;

    // With the certificate alone anything may be done, under its name.
    let mut jobs = world.jobs(&alice).await;
    let run = jobs.submit(submit(JOB)).await.expect("submitted").into_inner().run;
    let line = world
        .told(0, "the submit", |line| line["method"] == "gapless.v1.Jobs/Submit")
        .await;
    assert_eq!((&line["who"], &line["run"]), (&Value::from("alice"), &Value::from(run)));
    assert_eq!(line["outcome"], "done");
    drop(jobs);
    world.close().await;
}

/// One token for each role.
struct Badges {
    view: Secret,
    submit: Secret,
    operate: Secret,
    admin: Secret,
    worker: Secret,
    expired: Secret,
    file: TokenFile,
}

async fn with_tokens() -> (World, Badges) {
    let folder = World::folder();
    let file = TokenFile::new(folder.path());
    let badges = Badges {
        view: file.add("vera", Role::View, None),
        submit: file.add("sam", Role::Submit, None),
        operate: file.add("olga", Role::Operate, Some("2999-12-31")),
        admin: file.add("ada", Role::Admin, None),
        worker: file.add("will", Role::Worker, None),
        expired: file.add("erik", Role::Admin, Some("2020-01-01")),
        file,
    };
    let security = Security {
        tokens: Some(badges.file.path.clone()),
        ..Security::default()
    };
    (World::start(folder, security).await, badges)
}

/// Calls every kind of method and says how each ended.
async fn try_all(world: &World, access: &Access) -> [Code; 6] {
    let code = |answer: Result<(), tonic::Status>| answer.map_or_else(|status| status.code(), |()| Code::Ok);
    let nothing = "no such run";
    let mut jobs = world.jobs(access).await;
    let get = v1::GetRunRequest {
        with_job: false,
        run: nothing.to_string(),
    };
    let cancel = v1::CancelRunRequest {
        run: nothing.to_string(),
    };
    let channel = world.channel(access).await.expect("connected");
    let health = HealthClient::with_interceptor(channel.clone(), access.clone())
        .check(HealthCheckRequest::default())
        .await;
    let word = tokio_stream::once(ServerReflectionRequest::default());
    let reflection = ServerReflectionClient::with_interceptor(channel.clone(), access.clone())
        .server_reflection_info(word)
        .await;
    [
        code(health.map(drop)),
        code(reflection.map(drop)),
        code(jobs.get_run(get).await.map(drop)),
        code(jobs.submit(submit("no job")).await.map(drop)),
        code(jobs.cancel_run(cancel).await.map(drop)),
        code(Wire::open(channel, access, hello("w")).await.map(drop)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_needs_a_token_of_its_role() {
    let (world, badges) = with_tokens().await;
    // What a call that is let through ends with here.
    let (ok, none, bad) = (Code::Ok, Code::NotFound, Code::InvalidArgument);
    let (who, may) = (Code::Unauthenticated, Code::PermissionDenied);
    let other = "gapless_0000000000000000000000000000000000000000000000000000000000000000";
    for (access, expected) in [
        (Access::default(), [ok, who, who, who, who, who]),
        (with_token(other), [ok, who, who, who, who, who]),
        (with_token(badges.expired.expose()), [ok, who, who, who, who, who]),
        (with_token(badges.view.expose()), [ok, ok, none, may, may, may]),
        (with_token(badges.submit.expose()), [ok, ok, none, bad, may, may]),
        (with_token(badges.operate.expose()), [ok, ok, none, bad, none, may]),
        (with_token(badges.admin.expose()), [ok, ok, none, bad, none, may]),
        (with_token(badges.worker.expose()), [ok, may, may, may, may, ok]),
    ] {
        let from = world.audit().len();
        let codes = try_all(&world, &access).await;
        assert_eq!(codes, expected, "{access:?}");
        let denied = codes.iter().filter(|code| [who, may].contains(code)).count();
        let lines = world.audit().split_off(from);
        let on_record = lines.iter().filter(|line| line["outcome"] == "denied").count();
        assert_eq!(on_record, denied, "each denial is on the record: {lines:#?}");
    }
    let audit = world.audit();
    let text = serde_json::to_string(&audit).expect("JSON");
    for token in [
        other,
        badges.view.expose(),
        badges.admin.expose(),
        badges.expired.expose(),
    ] {
        assert!(!text.contains(token) && !log().contains(token), "no token is on record");
    }
    let by_erik = audit.iter().filter(|line| line["who"] == "erik").count();
    assert_eq!(by_erik, 5, "whose the expired token was is known");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_names_the_role_needed_and_the_role_held() {
    let (world, badges) = with_tokens().await;
    let mut jobs = world.jobs(&with_token(badges.submit.expose())).await;
    let run = jobs.submit(submit(JOB)).await.expect("submitted").into_inner().run;
    let cancel = || v1::CancelRunRequest { run: run.clone() };
    let status = refusal(jobs.cancel_run(cancel()).await);
    assert_eq!(status.code(), Code::PermissionDenied);
    for words in [
        "gapless.v1.Jobs/CancelRun",
        "needs the role operate",
        "sam has the role submit",
    ] {
        assert!(status.message().contains(words), "{}\nlacks {words}", status.message());
    }
    let status = refusal(world.jobs(&Access::default()).await.cancel_run(cancel()).await);
    assert!(status.message().contains("GAPLESS_TOKEN_FILE"), "{}", status.message());

    let operator = with_token(badges.operate.expose());
    let cancelled = world
        .jobs(&operator)
        .await
        .cancel_run(cancel())
        .await
        .expect("cancelled");
    assert_eq!(cancelled.into_inner().id, run);
    let records: Vec<_> = world
        .audit()
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_string();
            let mine = line["run"] == run.as_str();
            assert!(text("peer").starts_with("127.0.0.1:"), "{line}");
            (text("who"), text("role"), text("method"), mine, text("outcome"))
        })
        .collect();
    let row = |who: &str, role: &str, method: &str, mine: bool, outcome: &str| {
        let method = format!("gapless.v1.Jobs/{method}");
        (who.to_string(), role.to_string(), method, mine, outcome.to_string())
    };
    assert_eq!(
        records,
        [
            row("sam", "submit", "Submit", true, "done"),
            row("sam", "submit", "CancelRun", false, "denied"),
            row("anonymous", "", "CancelRun", false, "denied"),
            row("olga", "operate", "CancelRun", true, "done"),
        ]
    );
    drop(jobs);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_taken_out_is_refused_from_then_on() {
    let (world, badges) = with_tokens().await;
    let mut cluster = world.cluster(&with_token(badges.view.expose())).await;
    let ask = || v1::GetClusterRequest {};
    cluster.get_cluster(ask()).await.expect("let in");
    badges.file.take_out("vera");
    let status = refusal(cluster.get_cluster(ask()).await);
    assert_eq!(
        status.code(),
        Code::Unauthenticated,
        "on the connection that is open already"
    );
    let anew = badges.file.add("vera", Role::View, None);
    world.ask(&with_token(anew.expose())).await.expect("let in");

    // A file that cannot be read locks nobody out, and lets nobody in.
    std::fs::write(&badges.file.path, "tokens: [").expect("written");
    world.ask(&with_token(anew.expose())).await.expect("as before");
    let error = world
        .ask(&with_token(badges.view.expose()))
        .await
        .expect_err("as before");
    assert!(error.contains("tokens file"), "{error}");
    let path = badges.file.path.display().to_string();
    assert!(
        log()
            .lines()
            .any(|line| line.contains(&path) && line.contains("stay in force")),
        "the log says so"
    );
    drop(cluster);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_token_is_taken_out() {
    let (world, badges) = with_tokens().await;
    let stays = badges.file.add("wanda", Role::Worker, None);
    let open = |access: Access, name: &'static str| {
        let world = &world;
        async move {
            let channel = world.channel(&access).await.expect("connected");
            Wire::open(channel, &access, hello(name)).await.expect("a session")
        }
    };
    let mut goes = open(with_token(badges.worker.expose()), "goes").await;
    let _stays = open(with_token(stays.expose()), "stays").await;
    let admin = with_token(badges.admin.expose());
    let workers = || async {
        let mut cluster = world.cluster(&admin).await;
        let listed = cluster.list_workers(v1::ListWorkersRequest {}).await.expect("let in");
        let mut names: Vec<String> = listed.into_inner().workers.into_iter().map(|it| it.name).collect();
        names.sort();
        names
    };
    assert_eq!(workers().await, ["goes", "stays"]);
    badges.file.take_out("will");
    let why = goes.ended().await;
    assert!(why.contains("the token of will is no longer"), "{why}");
    let gone = || {
        log()
            .lines()
            .any(|line| line.contains("worker gone") && line.contains("the token of will"))
            .then_some(())
    };
    wait_for("the end of the session in the log", gone, log).await;
    let end = std::time::Instant::now() + PATIENCE;
    while workers().await != ["stays"] {
        assert!(
            std::time::Instant::now() < end,
            "its session is over for the leader too"
        );
    }
    drop(goes);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_hello_is_closed() {
    let world = World::start(World::folder(), Security::default()).await;
    let access = Access::default();
    let channel = world.channel(&access).await.expect("connected");
    let (_silent, messages) = tokio::sync::mpsc::channel(1);
    let mut client = v1::workers_client::WorkersClient::new(channel);
    let answer = client.session(tokio_stream::wrappers::ReceiverStream::new(messages));
    let status = refusal(
        tokio::time::timeout(PATIENCE, answer)
            .await
            .expect("it is closed")
            .map(drop),
    );
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("no hello within 10s"), "{status:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_connection_broke_is_not_lost_at_once() {
    let world = World::start(World::folder(), Security::default()).await;
    let access = Access::default();
    let mut jobs = world.jobs(&access).await;
    let Event::Hello(first) = hello("breaks") else {
        panic!("a hello")
    };
    let open = |hello: v1::Hello| {
        let (world, access) = (&world, &access);
        async move {
            let channel = world.channel(access).await.expect("connected");
            Wire::open(channel, access, Event::Hello(hello))
                .await
                .expect("a session")
        }
    };
    // What breaks off without an end of the stream, and comes back with what it holds.
    let mut wire = open(first.clone()).await;
    jobs.submit(submit(JOB)).await.expect("submitted");
    let grant = wire.granted().await;
    wire.break_off();
    let broke = || {
        log()
            .lines()
            .any(|line| line.contains("connection broke; it may come back") && line.contains("breaks"))
            .then_some(())
    };
    wait_for("the break in the log", broke, log).await;
    let held = v1::HeldAttempt {
        task: grant.task.clone(),
        fence: grant.fence,
        ..Default::default()
    };
    let mut again = open(v1::Hello {
        held: vec![held],
        ..first
    })
    .await;
    // Its report counts: the attempt is still its own. A second grant would be of the next stage.
    again
        .say(Event::Finished(v1::Finished {
            task: grant.task,
            fence: grant.fence,
            result: facts(1000).into(),
        }))
        .await;
    let next = again.granted().await;
    let stage = next.task.as_ref().map(|task| task.stage());
    assert_eq!(
        (stage, next.fence.map(|fence| fence.number)),
        (Some(v1::Stage::Prepare), Some(1))
    );
    drop((jobs, again));
    world.close().await;
}

/// Says some bytes and gives all that is answered until the other side closes.
fn say(world: &World, bytes: &[u8], then_nothing: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    // It may be closed before all of it is said.
    let _ = stream.write_all(bytes);
    if then_nothing {
        stream.shutdown(Half::Write).expect("half closed");
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("it is not closed: {error}"),
    }
    answer
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP_1: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// The beginning of a TLS handshake.
const CLIENT_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_speak_grpc_is_shown_the_door() {
    let world = World::start(World::folder(), Security::default()).await;
    let garbage: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (bytes, then_nothing, words) in [
        (&garbage[..], false, "does not speak HTTP/2"),
        (&garbage[..1], false, "does not speak HTTP/2"),
        (&[0; 64][..], false, "does not speak HTTP/2"),
        (HTTP_1, false, "speaks HTTP/1"),
        (b"POST /gapless.v1.Jobs/Submit HTTP/1.1\r\n", false, "speaks HTTP/1"),
        (CLIENT_HELLO, false, "speaks TLS"),
        (&PREFACE[..20], true, "does not speak HTTP/2"),
    ] {
        let from = world.audit().len();
        let answer = say(&world, bytes, then_nothing);
        match words {
            "speaks HTTP/1" => {
                let answer = String::from_utf8(answer).expect("text");
                assert!(answer.starts_with("HTTP/1.1 505 "), "{answer}");
                let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
                let length = head.split("content-length: ").nth(1).expect("a length");
                assert_eq!(length.parse(), Ok(body.len()), "{answer}");
            }
            _ => assert_eq!(answer, b"", "{words}"),
        }
        world.shown_the_door(from, words).await;
        world.ask(&Access::default()).await.expect("it serves on");
    }
    // Right at first, garbage afterwards: HTTP/2 itself ends that.
    let mut both = PREFACE.to_vec();
    both.extend_from_slice(&garbage);
    say(&world, &both, false);
    world.ask(&Access::default()).await.expect("it serves on");
    // A look at the port is nothing to tell of.
    let from = world.audit().len();
    assert_eq!(say(&world, b"", true), b"");
    assert_eq!(world.audit().len(), from);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_speak_tls_is_shown_the_door() {
    let ours = Authority::new("ours");
    let folder = World::folder();
    let security = Security {
        tls: ours.files(folder.path()),
        ..Security::default()
    };
    let world = World::start(folder, security).await;
    let alice = with_certificate(&ours, Some(ours.client("alice")));
    for (bytes, then_nothing) in [
        (HTTP_1, false),
        (PREFACE, false),
        (&[0xff; 300][..], false),
        (CLIENT_HELLO, true),
    ] {
        let from = world.audit().len();
        let answer = say(&world, bytes, then_nothing);
        assert!(answer.len() < 64, "an alert at most: {answer:?}");
        world.shown_the_door(from, "no TLS connection").await;
        world.ask(&alice).await.expect("it serves on");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_refused() {
    let world = World::start(World::folder(), Security::default()).await;
    let access = Access::default();
    let mut jobs = world.jobs(&access).await;

    let large = format!("{JOB}# {}\n", "x".repeat(5 << 20));
    let from = world.audit().len();
    let status = refusal(jobs.submit(submit(&large)).await);
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(status.message().contains("too large"), "{status:?}");
    world
        .told(from, "the refusal", |line| {
            line["outcome"] == "refused"
                && line["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains("too large"))
        })
        .await;
    // Below the limit of a message, beyond that of a job file.
    let status = refusal(jobs.submit(submit(&format!("{JOB}# {}\n", "x".repeat(2 << 20)))).await);
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");

    let mut request = Request::new(v1::GetClusterRequest {});
    let value = "x".repeat(1 << 20).parse().expect("ASCII");
    request.metadata_mut().insert("x-large", value);
    refusal(world.cluster(&access).await.get_cluster(request).await);

    let channel = world.channel(&access).await.expect("connected");
    let mut wire = Wire::open(channel, &access, hello("talker")).await.expect("a session");
    wire.say(Event::Finished(v1::Finished {
        result: vec![b'x'; 65 << 20].into(),
        ..Default::default()
    }))
    .await;
    wire.ended().await;
    let gone = || {
        log()
            .lines()
            .any(|line| line.contains("worker gone") && line.contains("talker"))
            .then_some(())
    };
    wait_for("the end of the session in the log", gone, log).await;

    world.ask(&access).await.expect("it serves on");
    jobs.submit(submit(JOB)).await.expect("a job of common size");
    drop((jobs, wire));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_or_changed_commit_counts_for_nothing() {
    let world = World::start(World::folder(), Security::default()).await;
    let access = Access::default();
    let mut jobs = world.jobs(&access).await;
    let run = jobs.submit(submit(JOB)).await.expect("submitted").into_inner().run;
    let connect = || async { world.channel(&access).await.expect("connected") };
    let mut owner = Wire::open(connect().await, &access, hello("owner"))
        .await
        .expect("a session");
    for result in [facts(1000), b"{}".to_vec()] {
        let grant = owner.granted().await;
        owner
            .say(Event::Finished(v1::Finished {
                task: grant.task,
                fence: grant.fence,
                result: result.into(),
            }))
            .await;
    }
    let grant = owner.granted().await;
    assert_eq!(grant.task.as_ref().map(|task| task.stage()), Some(v1::Stage::Execute));
    let fence = grant.fence.expect("a fence");
    let right = v1::CommitRequest {
        task: grant.task.clone(),
        fence: Some(fence),
        seq: 0,
        previous: 0,
        next: 400,
        counters: Some(v1::Counters {
            read: 400,
            written: 400,
            ..Default::default()
        }),
        digest: 1,
        ..Default::default()
    };
    let with_fence = |fence: v1::Fence| v1::CommitRequest {
        fence: Some(fence),
        ..right.clone()
    };
    let mut stranger = Wire::open(connect().await, &access, hello("stranger"))
        .await
        .expect("a session");

    let fenced = |reply: v1::CommitReply, what: &str| {
        assert!(!reply.accepted, "{what}: {reply:?}");
        assert!(reply.reason.starts_with("fenced"), "{what}: {reply:?}");
    };
    fenced(
        stranger.offer(right.clone()).await,
        "the right fence in another session",
    );
    for (what, wrong) in [
        (
            "a later attempt",
            v1::Fence {
                number: fence.number + 1,
                ..fence
            },
        ),
        (
            "an earlier attempt",
            v1::Fence {
                number: fence.number - 1,
                ..fence
            },
        ),
        (
            "another term",
            v1::Fence {
                term: fence.term + 1,
                ..fence
            },
        ),
        (
            "another serial",
            v1::Fence {
                serial: fence.serial + 1,
                ..fence
            },
        ),
    ] {
        fenced(owner.offer(with_fence(wrong)).await, what);
        fenced(stranger.offer(with_fence(wrong)).await, what);
    }
    assert_eq!(written(&world, &run).await, 0, "none of it counts");

    let reply = owner.offer(right.clone()).await;
    assert!(reply.accepted, "the owner's own: {reply:?}");
    assert_eq!(written(&world, &run).await, 400);
    let reply = owner.offer(right.clone()).await;
    assert!(reply.accepted, "said twice, it is the same commit: {reply:?}");
    let changed = v1::CommitRequest {
        next: 900,
        digest: 2,
        ..right.clone()
    };
    let reply = owner.offer(changed.clone()).await;
    assert!(!reply.accepted, "the same number for another chunk: {reply:?}");
    let reply = stranger.offer(changed).await;
    assert!(!reply.accepted, "the same from another session: {reply:?}");
    stranger.offer(right.clone()).await;
    assert_eq!(
        written(&world, &run).await,
        400,
        "what is recorded is not recorded again"
    );
    let next = v1::CommitRequest {
        seq: 1,
        previous: 400,
        next: 1000,
        last: true,
        ..right
    };
    fenced(stranger.offer(next).await, "the next one from another session");
    assert_eq!(written(&world, &run).await, 400, "once");

    let refused = log()
        .lines()
        .filter(|line| line.contains("commit refused") && line.contains(&run))
        .count();
    assert_eq!(refused, 12, "each refusal is in the log");
    world.ask(&access).await.expect("it serves on");
    drop((jobs, owner, stranger));
    world.close().await;
}

/// Records written by the run's partitions so far.
async fn written(world: &World, run: &str) -> u64 {
    let mut jobs = world.jobs(&Access::default()).await;
    let request = v1::ListPartitionsRequest {
        run: run.to_string(),
        ..Default::default()
    };
    let partitions = jobs
        .list_partitions(request)
        .await
        .expect("a list")
        .into_inner()
        .partitions;
    let counters = partitions.iter().filter_map(|partition| partition.counters);
    counters.map(|counters| counters.written).sum()
}
