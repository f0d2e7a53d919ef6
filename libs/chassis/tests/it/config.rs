use std::{
    ffi::OsString, net::SocketAddr, os::unix::ffi::OsStringExt as _, path::PathBuf, time::Duration,
};

use chassis::config::{Env, Process, parse_duration};
use secrecy::ExposeSecret as _;
use url::Url;

#[test]
fn every_kind_of_setting_is_read() {
    let mut env = Env::from_pairs(
        "test",
        [
            ("QUOKKA_TEXT", "some text"),
            ("QUOKKA_NUMBER", "7"),
            ("QUOKKA_SWITCH", "true"),
            ("QUOKKA_ADDR", "127.0.0.1:80"),
            ("QUOKKA_URL", "http://users:8080"),
            ("QUOKKA_TIME", "1h30m"),
            ("QUOKKA_LIST", "a:1, b:2"),
            ("QUOKKA_FILE", "/etc/key.pem"),
            ("QUOKKA_SECRET", "hunter2"),
            ("QUOKKA_DATABASE_URL", "postgres://u:p@h/d"),
            ("QUOKKA_EMPTY", ""),
        ],
    );
    assert_eq!(env.required::<String>("QUOKKA_TEXT"), "some text");
    assert_eq!(env.required::<u32>("QUOKKA_NUMBER"), 7);
    assert!(env.required::<bool>("QUOKKA_SWITCH"));
    assert_eq!(env.required::<SocketAddr>("QUOKKA_ADDR").port(), 80);
    assert_eq!(env.required::<Url>("QUOKKA_URL").host_str(), Some("users"));
    assert_eq!(
        env.required::<Duration>("QUOKKA_TIME"),
        Duration::from_secs(5_400)
    );
    assert_eq!(env.required::<Vec<String>>("QUOKKA_LIST"), ["a:1", "b:2"]);
    assert_eq!(
        env.required::<PathBuf>("QUOKKA_FILE"),
        PathBuf::from("/etc/key.pem")
    );
    assert_eq!(env.secret("QUOKKA_SECRET").expose_secret(), "hunter2");
    assert_eq!(
        env.secret_url("QUOKKA_DATABASE_URL", &["postgres"])
            .expose_secret(),
        "postgres://u:p@h/d"
    );
    assert_eq!(env.optional::<u16>("QUOKKA_EMPTY"), None);
    assert_eq!(env.or("QUOKKA_MISSING", 5_u64), 5);
    env.finish().unwrap();
}

#[test]
fn every_mistake_is_named_at_once() {
    let mut env = Env::from_pairs(
        "promotions api",
        [
            ("QUOKKA_HTTP_ADDR", OsString::from("8080")),
            ("QUOKKA_GRACE", "20".into()),
            ("QUOKKA_USERS_URL", "not a url".into()),
            ("QUOKKA_REPLICAS", "70000".into()),
            ("QUOKKA_BROKERS", "a:1,,b:2".into()),
            ("QUOKKA_TLS", "yes".into()),
            ("QUOKKA_NAME", OsString::from_vec(vec![0xff])),
            ("QUOKKA_REDIS_URL", "http://redis".into()),
            ("QUOKKA_LOG", "info,=".into()),
        ],
    );
    let _ = env.required::<SocketAddr>("QUOKKA_HTTP_ADDR");
    let _ = env.required::<Duration>("QUOKKA_GRACE");
    let _ = env.required::<Url>("QUOKKA_USERS_URL");
    let _ = env.or::<u16>("QUOKKA_REPLICAS", 2);
    let _ = env.required::<Vec<String>>("QUOKKA_BROKERS");
    let _ = env.optional::<bool>("QUOKKA_TLS");
    let _ = env.optional::<String>("QUOKKA_NAME");
    let _ = env.secret("QUOKKA_PASSWORD");
    let _ = env.secret_url("QUOKKA_REDIS_URL", &["redis", "rediss"]);
    let _ = Process::read(&mut env);
    env.mistake("QUOKKA_LIMIT", "is larger than QUOKKA_REPLICAS");

    let mistakes = env.finish().unwrap_err();
    let named: Vec<&str> = mistakes
        .iter()
        .map(|mistake| mistake.setting.as_str())
        .collect();
    assert_eq!(
        named,
        [
            "QUOKKA_HTTP_ADDR",
            "QUOKKA_GRACE",
            "QUOKKA_USERS_URL",
            "QUOKKA_REPLICAS",
            "QUOKKA_BROKERS",
            "QUOKKA_TLS",
            "QUOKKA_NAME",
            "QUOKKA_PASSWORD",
            "QUOKKA_REDIS_URL",
            "QUOKKA_LOG",
            "QUOKKA_LIMIT",
        ]
    );
    let text = mistakes.to_string();
    assert!(
        text.starts_with("promotions api: 11 settings can't work\n"),
        "{text}"
    );
    assert!(
        text.contains("QUOKKA_GRACE is not a duration: give a duration such as"),
        "{text}"
    );
}

#[test]
fn blanks_are_no_value() {
    let mut env = Env::from_pairs("test", [("QUOKKA_ISSUER", "  "), ("QUOKKA_SECRET", "\t")]);
    assert_eq!(env.or("QUOKKA_ISSUER", "quokka".to_owned()), "quokka");
    let _ = env.secret("QUOKKA_SECRET");
    let mistakes = env.finish().unwrap_err().to_string();
    assert!(mistakes.contains("QUOKKA_SECRET is not set"), "{mistakes}");
}

#[test]
fn a_process_needs_some_time_to_end() {
    let mut env = Env::from_pairs("test", [("QUOKKA_SHUTDOWN_GRACE", "0s")]);
    let _ = Process::read(&mut env);
    let mistakes = env.finish().unwrap_err().to_string();
    assert!(
        mistakes.contains("QUOKKA_SHUTDOWN_GRACE is no time at all"),
        "{mistakes}"
    );
}

#[test]
fn variables_that_no_setting_reads_are_known_by_name() {
    let mut env = Env::from_pairs(
        "test",
        [
            ("QUOKKA_NAME", "a"),
            ("QUOKKA_NMAE", "b"),
            ("HOME", "/"),
            ("QUOKKA_CITY", "c"),
        ],
    );
    let _ = env.required::<String>("QUOKKA_NAME");
    let _ = env.optional::<String>("QUOKKA_MISSING");
    env.finish().unwrap();
    assert_eq!(
        env.unread().collect::<Vec<_>>(),
        ["QUOKKA_CITY", "QUOKKA_NMAE"]
    );
}

#[test]
fn no_value_is_ever_printed() {
    let mut env = Env::from_pairs(
        "test",
        [
            ("QUOKKA_DATABASE_URL", "mysql://root:hunter2@host"),
            ("QUOKKA_URL", "hunter2"),
            ("QUOKKA_ADDR", "hunter2"),
            ("QUOKKA_LOG", "hunter2=hunter2"),
            ("QUOKKA_SECRET", "hunter2"),
        ],
    );
    let _ = env.secret_url("QUOKKA_DATABASE_URL", &["postgres", "postgresql"]);
    let _ = env.required::<Url>("QUOKKA_URL");
    let _ = env.required::<SocketAddr>("QUOKKA_ADDR");
    let secret = env.secret("QUOKKA_SECRET");
    let _ = Process::read(&mut env);
    let mistakes = env.finish().unwrap_err();
    assert_eq!(mistakes.iter().count(), 4);
    assert!(
        !format!("{mistakes} {mistakes:?} {secret:?}").contains("hunter2"),
        "{mistakes}"
    );
}

#[test]
fn a_duration_has_a_unit() {
    for (text, millis) in [
        ("0", 0),
        ("250ms", 250),
        ("10s", 10_000),
        ("1h30m", 5_400_000),
        ("30d", 2_592_000_000),
    ] {
        assert_eq!(
            parse_duration(text),
            Some(Duration::from_millis(millis)),
            "{text}"
        );
    }
    for text in [
        "",
        "10",
        "s",
        "10 s",
        "-1s",
        "1.5h",
        "1w",
        "99999999999999999999s",
        "9999999999999999999d",
    ] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}
