use super::*;
use crate::{objects::is_built, secret::Secret};

fn layers(flags: &[(Setting, &str)], variables: &[(&str, &str)], file: Option<&str>) -> Layers {
    Layers {
        flags: flags
            .iter()
            .map(|(setting, value)| (*setting, value.to_string()))
            .collect(),
        variables: variables
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        file: file.map(|text| (PathBuf::from("conf.yaml"), text.to_string())),
    }
}

#[test]
fn settings_stand_in_the_order_of_their_enum() {
    for (index, setting) in Setting::ALL.into_iter().enumerate() {
        assert_eq!(setting as usize, index, "{setting:?}");
    }
}

#[test]
fn defaults_are_valid() {
    let config = Config::resolve(&Layers::default()).expect("the defaults");
    assert_eq!(config.endpoints, ["http://127.0.0.1:7070"]);
    assert_eq!(config.scratch, PathBuf::from(".gapless/scratch"));
    assert!(config.slots >= 1);
    assert_eq!(config.metrics_listen, None);
    assert!(config.sources.iter().all(|sourced| sourced.origin == Origin::Default));
}

#[test]
fn the_nearest_layer_wins_and_says_so() {
    let file = "slots: 3\nlease_ms: 9000\nlog_level: debug\nendpoints: [a:1, 'http://b:2']\n";
    let variables = [("GAPLESS_SLOTS", "4"), ("GAPLESS_LEASE_MS", "8000")];
    let config = Config::resolve(&layers(&[(Setting::Slots, "5")], &variables, Some(file))).expect("valid");
    assert_eq!(
        (config.slots, config.lease_ms, config.log_level.as_str()),
        (5, 8000, "debug")
    );
    assert_eq!(config.endpoints, ["http://a:1", "http://b:2"]);
    let origins = [
        Setting::Slots,
        Setting::LeaseMs,
        Setting::LogLevel,
        Setting::HeartbeatMs,
    ]
    .map(|setting| config.origin(setting).to_string());
    assert_eq!(
        origins,
        ["flag --slots", "variable GAPLESS_LEASE_MS", "file conf.yaml", "default"]
    );
}

#[test]
fn scratch_is_a_folder_or_an_address_and_what_is_spilled_a_folder() {
    let file = "scratch: s3://lake/scratch/\nspill_dir: /fast\n";
    let config = Config::resolve(&layers(&[], &[("TMPDIR", "/var/tmp")], Some(file)));
    // Which stores there are is a matter of the build.
    if is_built(gapless_common::address::Scheme::S3) {
        let config = config.expect("valid");
        assert_eq!(config.scratch, PathBuf::from("s3://lake/scratch"));
        let spill = SpillDir {
            named: Some("/fast".into()),
            temporary: "/var/tmp".into(),
        };
        assert_eq!(config.spill_dir, spill);
    } else {
        let error = config.expect_err("not built").to_string();
        assert!(error.contains("cargo feature s3"), "{error}");
    }
    assert_eq!(
        Config::resolve(&Layers::default()).expect("defaults").spill_dir,
        SpillDir {
            named: None,
            temporary: "/tmp".into()
        }
    );
    for (setting, value, words) in [
        (Setting::Scratch, "ftp://lake/scratch", "known are s3://"),
        (Setting::Scratch, "", "s3://bucket/scratch"),
        (Setting::SpillDir, "s3://lake/spill", "write the path of a folder"),
        (Setting::StateDir, "s3://lake/state", "write the path of a folder"),
    ] {
        let error = Config::resolve(&layers(&[(setting, value)], &[], None)).expect_err("refused");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn mistakes_are_told_with_place_and_remedy() {
    let check = |layers: Layers, words: &[&str]| {
        let error = Config::resolve(&layers).expect_err("a mistake").to_string();
        for word in words {
            assert!(error.contains(word), "{error}\nlacks {word}");
        }
    };
    check(
        layers(&[], &[], Some("slot: 3")),
        &["conf.yaml", "\"slot\"", "did you mean \"slots\"?"],
    );
    check(
        layers(&[], &[], Some("slots: {a: 1}")),
        &["conf.yaml", "slots", "a number"],
    );
    check(layers(&[], &[], Some("slots: [1")), &["conf.yaml", "line 1"]);
    check(
        layers(&[(Setting::Slots, "0")], &[], None),
        &["slots = \"0\"", "flag --slots", "from 1 to 1024"],
    );
    check(
        layers(&[], &[("GAPLESS_LISTEN", "here")], None),
        &["variable GAPLESS_LISTEN", "127.0.0.1:7070"],
    );
    check(
        layers(&[], &[], Some("metrics_listen: 9464")),
        &["file conf.yaml", "127.0.0.1:9464, or off"],
    );
    check(
        layers(&[], &[("GAPLESS_LOG_FORMAT", "xml")], None),
        &["compact and json"],
    );
    check(
        layers(&[], &[("GAPLESS_ENDPOINTS", "ftp://a:1")], None),
        &["ftp://a:1", "http://HOST:PORT"],
    );
    check(
        layers(&[(Setting::Store, "zookeeper")], &[], None),
        &["flag --store", "embedded or etcd"],
    );
    check(
        layers(&[], &[("GAPLESS_ETCD_ENDPOINTS", " , ")], None),
        &["GAPLESS_ETCD_ENDPOINTS", "http://127.0.0.1:2379"],
    );
    check(
        layers(&[(Setting::ClusterName, "a/b")], &[], None),
        &["cluster_name", "dashes"],
    );
    check(
        layers(&[(Setting::Advertise, "here")], &[], None),
        &["advertise", "coordinator-1:7070"],
    );
    check(layers(&[(Setting::LeaderTtlS, "1")], &[], None), &["from 2 to 600"]);
    check(
        layers(&[(Setting::HeartbeatMs, "2000")], &[], None),
        &["heartbeat_ms = 2000", "lease_ms = 5000"],
    );
}

#[test]
fn endpoints_without_a_scheme_follow_tls() {
    let file = "endpoints: ['a:1', 'http://b:2', 'https://c:3']\n";
    let plain = Config::resolve(&layers(&[], &[], Some(file))).expect("valid");
    assert_eq!(plain.endpoints, ["http://a:1", "http://b:2", "https://c:3"]);
    let with_ca = [("GAPLESS_TLS_CA", "ca.pem")];
    let config = Config::resolve(&layers(&[], &with_ca, Some(file))).expect("valid");
    assert_eq!(config.endpoints, ["https://a:1", "http://b:2", "https://c:3"]);
    let config = Config::resolve(&layers(&[], &with_ca, None)).expect("valid");
    assert_eq!(config.endpoints, ["https://127.0.0.1:7070"]);
}

#[test]
fn the_nearest_token_is_shown_and_never_printed() {
    let source = |layers: Layers| Config::resolve(&layers).expect("valid").token;
    let file = |path: &str| TokenSource::File(PathBuf::from(path));
    let given = TokenSource::Given(Secret::new("s3cret"));
    let token = ("GAPLESS_TOKEN", "s3cret");
    assert_eq!(source(layers(&[], &[], None)), TokenSource::None);
    assert_eq!(source(layers(&[], &[token], Some("token_file: f"))), given);
    assert_eq!(source(layers(&[], &[], Some("token_file: f"))), file("f"));
    assert_eq!(
        source(layers(&[], &[token, ("GAPLESS_TOKEN_FILE", "v")], None)),
        file("v")
    );
    assert_eq!(source(layers(&[(Setting::TokenFile, "w")], &[token], None)), file("w"));

    let config = Config::resolve(&layers(&[], &[token], None)).expect("valid");
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn variables_for_programs_are_named() {
    let read = |text: &str| Config::resolve(&layers(&[(Setting::ProgramVariables, text)], &[], None));
    assert!(read("none").expect("valid").program_variables.is_empty());
    let config = read("AWS_*, MODEL_TOKEN,*").expect("valid");
    assert_eq!(config.program_variables, ["AWS_*", "MODEL_TOKEN", "*"]);
    for (bad, words) in [
        ("A B", "no name of a variable"),
        ("A*B", "no name of a variable"),
        ("", "no name of a variable"),
        ("A,,B", "no name of a variable"),
        ("GAPLESS_TOKEN", "no program gets"),
    ] {
        let error = read(bad).expect_err("refused").to_string();
        assert!(error.contains(words), "{bad:?}: {error}");
    }
}

#[test]
fn allowed_paths_are_absolute() {
    let read = |text: &str| Config::resolve(&layers(&[(Setting::AllowPaths, text)], &[], None));
    assert!(read("any").expect("valid").allow_paths.is_empty());
    let config = read("/srv/a, /srv/b").expect("valid");
    assert_eq!(config.allow_paths, [PathBuf::from("/srv/a"), PathBuf::from("/srv/b")]);
    for bad in ["data", "/srv/a,data", "", " , "] {
        let error = read(bad).expect_err("refused").to_string();
        assert!(error.contains("absolute path"), "{bad:?}: {error}");
    }
}

#[test]
fn a_misspelt_variable_is_told() {
    let variables = [
        ("GAPLESS_SLOT", "4"),
        ("GAPLESS_SLOTS", "2"),
        ("GAPLESS_TEST_SEED", "1"),
        ("SLOT", "9"),
    ];
    let config = Config::resolve(&layers(&[], &variables, None)).expect("valid");
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("GAPLESS_SLOTS"));
}

#[test]
fn a_named_file_must_exist_and_comments_are_no_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    let error = Layers::of_process(BTreeMap::new(), Some(path.clone())).expect_err("no file");
    assert!(error.to_string().contains("config.yaml"), "{error}");
    for text in ["# nothing yet\n", "metrics_listen: off\n"] {
        fs::write(&path, text).expect("written");
        let layers = Layers::of_process(BTreeMap::new(), Some(path.clone())).expect("a file");
        let config = Config::resolve(&layers).expect("valid");
        assert_eq!(config.metrics_listen, None);
    }
}

#[test]
fn etcd_is_reached_with_tls_or_here_and_its_password_is_never_in_the_clear() {
    let resolve = |flags: &[(Setting, &str)], variables: &[(&str, &str)]| {
        Config::resolve(&layers(flags, variables, None)).map_err(|error| error.to_string())
    };
    let (at, user, ca) = (Setting::EtcdEndpoints, Setting::EtcdUser, Setting::EtcdCa);
    let password = ("GAPLESS_ETCD_PASSWORD", "s3cret word");
    let config = resolve(&[(user, "sales")], &[password]).expect("on this machine");
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    assert_eq!(
        config.etcd_user.expect("a user").password.read().expect("a password"),
        Secret::new("s3cret word")
    );
    let config = resolve(&[(at, "etcd-1:2379"), (user, "sales"), (ca, "/ca.pem")], &[password]).expect("with TLS");
    assert_eq!(config.etcd_endpoints, ["https://etcd-1:2379"]);
    type Flags<'a> = &'a [(Setting, &'a str)];
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Flags<'_>, Variables<'_>, &str); 6] = [
        (
            &[(at, "http://etcd-1:2379"), (user, "sales")],
            &[password],
            "not sent there in plain text",
        ),
        (
            &[(at, "http://127.0.0.1.example:1"), (user, "sales")],
            &[password],
            "in plain text",
        ),
        (&[(at, "http://127.0.0.1:2379"), (ca, "/ca.pem")], &[], "write https://"),
        (&[(at, "https://etcd-1:2379")], &[], "give etcd_ca"),
        (&[(user, "sales")], &[], "GAPLESS_ETCD_PASSWORD"),
        (&[], &[password], "give etcd_user"),
    ];
    for (flags, variables, words) in cases {
        let said = resolve(flags, variables).expect_err(words);
        assert!(
            said.contains(words) && !said.contains("s3cret"),
            "{words:?} is not in: {said}"
        );
    }
}
