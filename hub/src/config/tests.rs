//! Settings: what is read, what is refused and how it is said.

use std::{path::Path, time::Duration};

use lockstep_engine::policy::Refresher;
use proptest::prelude::*;

use super::{ClientAuth, ClusterUrl, Config, ConfigErrors, RequestFormat, StoreUrl};

/// The example of the protocol page, word for word.
const EXAMPLE: &str = r#"[server]
listen = "127.0.0.1:8787"          # /v1/*, /oauth/*, /.well-known/*
admin_listen = "127.0.0.1:8788"
admin_token_file = "admin.token"
allowed_origins = []
[store]
url = "file:lockstep.db"
key_file = "lockstep.key"
spool = "spool"
[cluster]
url = "local:"
[providers.example]
token_endpoint = "http://127.0.0.1:9000/token"
client_id = "app"
request_format = "form"
refresher = "hub"
lead = "5m"
grace = "0s"
timeout = "20s"
lease = "45s"
reject_interval = "30s"
"#;

fn with(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::parse("lockstep.toml", text, Path::new("/etc/lockstep"), environment)
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    with(text, &[])
}

/// All errors, a line each.
fn refused(text: &str) -> String {
    parse(text).expect_err("refused").to_string()
}

/// A provider with one more line.
fn provider(line: &str) -> String {
    format!("[providers.example]\ntoken_endpoint = \"http://127.0.0.1:9000/token\"\nclient_id = \"app\"\n{line}\n")
}

#[test]
fn the_example_of_the_protocol_page_is_read() {
    let config = parse(EXAMPLE).expect("valid");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8787");
    assert_eq!(config.store.url, StoreUrl::File("/etc/lockstep/lockstep.db".into()));
    assert_eq!(config.cluster.url, ClusterUrl::Local);
    let example = &config.providers["example"];
    assert_eq!(example.request_format, RequestFormat::Form);
    assert_eq!(example.refresher, Refresher::Hub);
    assert_eq!(example.client_auth(), ClientAuth::None);
    assert_eq!(example.lead, Duration::from_secs(300));
}

#[test]
fn what_the_file_does_not_say_has_the_defaults_of_the_protocol_page() {
    let silent = parse(&provider("")).expect("valid");
    let written = parse(EXAMPLE).expect("valid");
    assert_eq!(silent.print(), written.print());
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let config = parse("[store]\nkey_file = \"keys/a\"\nspool = \"/var/spool\"").expect("valid");
    assert_eq!(config.store.key_file, Path::new("/etc/lockstep/keys/a"));
    assert_eq!(config.store.spool, Path::new("/var/spool"));
    assert_eq!(config.server.admin_token_file, Path::new("/etc/lockstep/admin.token"));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    assert_eq!(
        refused("[server]\nlisen = \"127.0.0.1:1\"\n"),
        "lockstep.toml:2: server.lisen: unknown setting; the nearest known one is \"server.listen\""
    );
    assert_eq!(
        refused(&provider("reject_intervall = \"1s\"")),
        "lockstep.toml:4: providers.example.reject_intervall: unknown setting; the nearest known one is \
         \"providers.example.reject_interval\""
    );
}

#[test]
fn an_unknown_table_is_named_once() {
    assert_eq!(
        refused("[sever]\nlisten = \"127.0.0.1:1\"\ndrain = \"1s\"\n"),
        "lockstep.toml:1: sever: unknown setting; the nearest known one is \"server\""
    );
}

#[test]
fn a_key_in_the_wrong_table_is_told_where_it_belongs() {
    assert_eq!(
        refused("[store]\ndrain = \"1s\"\n"),
        "lockstep.toml:2: store.drain: unknown setting; the nearest known one is \"server.drain\""
    );
}

#[test]
fn a_wrong_type_is_named_with_its_line_and_what_was_expected() {
    for (line, said) in [
        (
            "listen = 8787",
            "expected an IP address and port like \"127.0.0.1:8787\"; found an integer",
        ),
        (
            "listen = \"localhost\"",
            "expected an IP address and port like \"127.0.0.1:8787\"; invalid socket address syntax",
        ),
        (
            "drain = 10",
            "expected a duration like \"30s\" or \"1h 30m\"; found an integer",
        ),
        (
            "drain = \"10\"",
            "expected a duration like \"30s\" or \"1h 30m\"; time unit needed, for example 10sec or 10ms",
        ),
        ("behind_proxy = \"yes\"", "expected true or false; found a string"),
        (
            "allowed_origins = \"*\"",
            "expected a list, each an origin like \"https://app.example.com\"; found a string",
        ),
        (
            "allowed_origins = [\"https://a.example/path\"]",
            "expected a list, each an origin like \"https://app.example.com\"; no path may follow the host",
        ),
        (
            "trusted_proxies = [\"10.0.0.0/33\"]",
            "expected a list, each a network like \"10.0.0.0/8\" or one address; after the slash: a number from 0 to 32",
        ),
        ("limits = true", "expected a table"),
    ] {
        let key = line.split(' ').next().unwrap();
        assert_eq!(
            refused(&format!("[server]\n{line}")),
            format!("lockstep.toml:2: server.{key}: {said}")
        );
    }
    assert_eq!(
        refused(&provider("request_format = \"xml\"")),
        "lockstep.toml:4: providers.example.request_format: expected one of \"form\", \"json\""
    );
    assert_eq!(
        refused("[store]\nurl = \"mysql://x\""),
        "lockstep.toml:2: store.url: expected \"file:PATH\", \"memory:\" or \"postgres://…\""
    );
}

#[test]
fn a_missing_setting_is_named_with_the_line_of_its_table() {
    assert_eq!(
        refused("\n[providers.example]\nclient_id = \"app\"\n"),
        "lockstep.toml:2: providers.example.token_endpoint: missing; expected a URL"
    );
    assert_eq!(
        refused("[tls]\ncert = \"cert.pem\"\n"),
        "lockstep.toml:1: tls.key: missing; expected a path"
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = "[server]\nlisten = 1\nlisen = 2\n[log]\nlevel = \"loud\"\n[providers.example]\nlead = 5\n[sever]\n";
    let errors = with(text, &[("LOCKSTEP_STORE__URI", "memory:")]).expect_err("refused");
    let places: Vec<_> = errors.0.iter().map(|e| (e.place.to_string(), e.key.as_str())).collect();
    assert_eq!(
        places,
        [
            ("lockstep.toml:2".into(), "server.listen"),
            ("lockstep.toml:3".into(), "server.lisen"),
            ("lockstep.toml:5".into(), "log.level"),
            ("lockstep.toml:6".into(), "providers.example.token_endpoint"),
            ("lockstep.toml:6".into(), "providers.example.client_id"),
            ("lockstep.toml:7".into(), "providers.example.lead"),
            ("lockstep.toml:8".into(), "sever"),
            ("environment variable LOCKSTEP_STORE__URI".into(), "store.uri"),
        ]
    );
}

#[test]
fn what_is_not_toml_is_named_by_its_line() {
    let said = refused("[server]\nlisten = \n[store\nurl = \"memory:\"\n");
    assert!(said.contains("lockstep.toml:2: not TOML"), "{said}");
    assert!(said.contains("lockstep.toml:3: not TOML"), "{said}");
    let said = refused("[server]\ndrain = \"1s\"\ndrain = \"2s\"\n");
    assert!(said.starts_with("lockstep.toml:3: not TOML: duplicate key"), "{said}");
}

#[test]
fn the_environment_goes_before_the_file() {
    let config = with(
        EXAMPLE,
        &[
            ("LOCKSTEP_SERVER__LISTEN", "127.0.0.1:0"),
            (
                "LOCKSTEP_SERVER__ALLOWED_ORIGINS",
                "https://a.example, https://b.example",
            ),
            ("LOCKSTEP_SERVER__LIMITS__MAX_CONNECTIONS", "7"),
            ("LOCKSTEP_PROVIDERS__EXAMPLE__CLIENT_ID", "other"),
            ("LOCKSTEP_PROVIDERS__EXAMPLE__MAX_PER_SECOND", "2.5"),
            ("LOCKSTEP_SERVER__BEHIND_PROXY", "true"),
        ],
    )
    .expect("valid");
    assert_eq!(config.server.listen.port(), 0);
    assert_eq!(config.server.allowed_origins.len(), 2);
    assert_eq!(config.server.limits.max_connections, 7);
    assert_eq!(config.providers["example"].client_id, "other");
    assert!((config.providers["example"].max_per_second - 2.5).abs() < f64::EPSILON);
    assert!(config.server.behind_proxy);
}

#[test]
fn the_environment_alone_can_make_tables() {
    let config = with(
        "[providers.\"My-Idp.eu\"]\ntoken_endpoint = \"https://idp.example/token\"\n",
        &[
            ("LOCKSTEP_PROVIDERS__MY_IDP_EU__CLIENT_ID", "one"),
            ("LOCKSTEP_PROVIDERS__NEW__CLIENT_ID", "two"),
            ("LOCKSTEP_PROVIDERS__NEW__TOKEN_ENDPOINT", "https://new.example/token"),
            ("LOCKSTEP_TLS__CERT", "c"),
            ("LOCKSTEP_TLS__KEY", "k"),
        ],
    )
    .expect("valid");
    let ids: Vec<_> = config
        .providers
        .iter()
        .map(|(name, p)| (name.as_str(), p.client_id.as_str()))
        .collect();
    assert_eq!(ids, [("My-Idp.eu", "one"), ("new", "two")]);
    assert!(config.tls.is_some());
}

#[test]
fn an_unknown_variable_is_named_with_the_nearest_known_one() {
    let said = |name| with("", &[(name, "x")]).expect_err("refused").to_string();
    assert_eq!(
        said("LOCKSTEP_SERVER__LISEN"),
        "environment variable LOCKSTEP_SERVER__LISEN: server.lisen: unknown setting; the nearest known one is \
         LOCKSTEP_SERVER__LISTEN"
    );
    assert!(said("LOCKSTEP_PROVIDERS__EXAMPLE").contains("unknown setting"));
}

#[test]
fn a_wrong_variable_is_named_and_its_value_is_not_repeated() {
    let error = with("", &[("LOCKSTEP_SERVER__DRAIN", "s3cret")])
        .expect_err("refused")
        .to_string();
    assert!(
        error.starts_with("environment variable LOCKSTEP_SERVER__DRAIN: server.drain: expected a duration"),
        "{error}"
    );
}

#[test]
fn other_variables_are_none_of_the_settings_business() {
    let others = [
        ("LOCKSTEP_ADMIN_TOKEN", "t"),
        ("LOCKSTEP_KEY", "k"),
        ("LOCKSTEP_LOG", "debug"),
        ("LOCKSTEP_ANYTHING", "x"),
        ("PATH", "/bin"),
    ];
    with("", &others).expect("valid");
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for (text, key) in [
        ("[server]\nlisten = \"0.0.0.0:8787\"".to_owned(), "server.listen"),
        (
            "[server]\nadmin_listen = \"0.0.0.0:8788\"".to_owned(),
            "server.admin_listen",
        ),
        (
            "[server]\nadmin_listen = \"127.0.0.1:8787\"".to_owned(),
            "server.admin_listen",
        ),
        ("[server]\nheartbeat = \"0s\"".to_owned(), "server.heartbeat"),
        (
            "[store]\nurl = \"memory:\"\n[cluster]\nurl = \"redis://127.0.0.1\"".to_owned(),
            "cluster.url",
        ),
        ("[cluster]\nurl = \"redis://127.0.0.1\"".to_owned(), "cluster.url"),
        ("[alerts]\nconflict_rate = 5".to_owned(), "alerts.conflict_rate"),
        (provider("lease = \"29s\""), "providers.example.lease"),
        (provider("lease = \"61s\""), "providers.example.lease"),
        (provider("timeout = \"45s\""), "providers.example.timeout"),
        (provider("timeout = \"0s\""), "providers.example.timeout"),
        (provider("client_auth = \"basic\""), "providers.example.client_auth"),
        (
            provider("client_secret = \"s\"\nrefresher = \"device\""),
            "providers.example.refresher",
        ),
        (
            provider("client_secret = \"s\"\nclient_secret_file = \"f\""),
            "providers.example.client_secret_file",
        ),
        (provider("max_concurrent = 0"), "providers.example.max_concurrent"),
        (
            provider("").replace("http://127.0.0.1:9000", "http://idp.example"),
            "providers.example.token_endpoint",
        ),
        (
            provider("").replace("http:", "ftp:"),
            "providers.example.token_endpoint",
        ),
        (
            provider("").replace("http://", "http://user:pass@"),
            "providers.example.token_endpoint",
        ),
        (
            "[providers.\"a b\"]\ntoken_endpoint = \"https://x.example/\"\nclient_id = \"a\"".to_owned(),
            "providers.\"a b\"",
        ),
    ] {
        let errors = parse(&text).expect_err(&text);
        assert_eq!(errors.0.len(), 1, "{text}: {errors}");
        assert_eq!(errors.0[0].key, key, "{text}: {errors}");
    }
}

#[test]
fn settings_that_go_together_are_taken() {
    for text in [
        "[server]\nlisten = \"0.0.0.0:8787\"\nbehind_proxy = true".to_owned(),
        "[server]\nlisten = \"[::]:8787\"\n[tls]\ncert = \"c\"\nkey = \"k\"".to_owned(),
        "[server]\nlisten = \"[::1]:0\"\nadmin_listen = \"[::1]:0\"".to_owned(),
        "[store]\nurl = \"postgres://u:p@db/lockstep\"\n[cluster]\nurl = \"rediss://:p@redis:6380/0\"".to_owned(),
        provider("refresher = \"device\"\ntimeout = \"29s\"\nlease = \"30s\""),
        provider("client_secret = \"s\"\nclient_auth = \"post\""),
        provider("allow_http = true").replace("127.0.0.1", "idp.internal"),
        provider("").replace("127.0.0.1", "localhost"),
        provider("").replace("127.0.0.1", "[::1]"),
    ] {
        if let Err(errors) = parse(&text) {
            panic!("{text}\n{errors}");
        }
    }
}

#[test]
fn no_secret_is_printed_nor_shown_by_debug() {
    let text = "[store]\nurl = \"postgres://user:s3cret@db:5433/lockstep?password=s3cret\"\n\
         [cluster]\nurl = \"redis://:s3cret@redis:6379/0\"\n\
         [alerts]\nwebhook = \"https://hooks.example/s3cret?t=s3cret\"\n"
        .to_owned()
        + &provider("client_secret = \"s3cret\"");
    let config = parse(&text).expect("valid");
    for shown in [config.print(), format!("{config:?}")] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    assert!(config.print().contains("url = \"postgres://db:5433/…\""));
    assert!(config.print().contains("client_secret = \"[secret]\""));
}

#[test]
fn what_is_printed_can_be_read_again() {
    let text = "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\ndrain = \"1m 5s\"\n\
         [providers.\"a.b@c\"]\ntoken_endpoint = \"https://x.example/token\"\nclient_id = \"a\\\"b\"\n";
    let config = parse(text).expect("valid");
    let again = parse(&config.print()).expect("valid");
    assert_eq!(again.print(), config.print());
    assert!(config.print().contains("drain = \"1m 5s\""));
}

#[test]
fn the_reference_holds_the_defaults() {
    let reference = Config::reference();
    let config = Config::parse("reference", &reference, Path::new(""), std::iter::empty()).expect("valid");
    let silent = "[providers.example]\ntoken_endpoint = \"https://provider.example.com/token\"\nclient_id = \"app\"\n";
    let silent = Config::parse("silent", silent, Path::new(""), std::iter::empty()).expect("valid");
    assert_eq!(config.print(), silent.print());
}

#[test]
fn what_the_reference_has_commented_out_is_known_too() {
    let all: String = Config::reference()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => rest,
            _ => line,
        })
        .fold(String::new(), |all, line| all + line + "\n");
    assert!(all.contains("\n[tls]"), "{all}");
    let Err(errors) = parse(&all) else { return };
    // Two ways to give a client secret exclude each other; nothing else may be wrong.
    let keys: Vec<_> = errors.0.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["providers.example.client_secret_file"], "{errors}");
}

fn is_key(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// To write the page anew: `UPDATE_PAGES=1 cargo test -p lockstep-hub the_page`.
#[test]
fn the_page_of_settings_is_the_program_s() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    if std::env::var_os("UPDATE_PAGES").is_some() {
        std::fs::write(&file, Config::page()).expect("written");
    }
    let page = std::fs::read_to_string(&file).expect("docs/settings.md");
    assert!(
        page == Config::page(),
        "docs/settings.md is not what the program says; see this test's comment"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let errors = Config::load(Path::new("/nowhere/lockstep.toml"), std::iter::empty()).expect_err("refused");
    assert!(
        errors
            .to_string()
            .starts_with("/nowhere/lockstep.toml: cannot be read: "),
        "{errors}"
    );
}

#[test]
fn networks_hold_their_addresses() {
    for (network, address, holds) in [
        ("10.0.0.0/8", "10.255.1.2", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("10.0.0.0/8", "::ffff:10.1.1.1", true),
        ("192.168.1.7", "192.168.1.7", true),
        ("192.168.1.7", "192.168.1.8", false),
        ("0.0.0.0/0", "8.8.8.8", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("2001:db8::/32", "2001:db8:ffff::1", true),
        ("::/0", "2001:db8::1", true),
        ("::1", "::1", true),
    ] {
        let network: super::Network = network.parse().expect("network");
        assert_eq!(
            network.contains(address.parse().expect("address")),
            holds,
            "{network} {address}"
        );
    }
}

proptest! {
    #[test]
    fn reading_never_panics(text in "(\\[[a-z.\"]{1,12}\\]\n|[a-z_.]{1,12} = [\"a-z0-9:/.\\[\\]{}é-]{0,20}\n|.{0,20}\n){0,12}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_value_in_any_setting_is_read_or_refused(
        index in 0..1000usize,
        value in prop_oneof![Just("1"), Just("-1"), Just("1e400"), Just("0x1F"), Just("\"\""), Just("[]"), Just("{}"), Just("[{}]"), Just("true"), Just("1979-05-27"), Just("\"file:\""), Just("\"99999999999999999999y\"")],
    ) {
        let reference = Config::reference();
        let lines: Vec<_> = reference.lines().collect();
        let at = index % lines.len();
        let changed: Vec<_> = lines
            .iter()
            .enumerate()
            .map(|(i, line)| match line.split_once(" = ") {
                Some((key, _)) if i == at && !key.contains(' ') => format!("{key} = {value}"),
                _ => (*line).to_owned(),
            })
            .collect();
        let _ = parse(&changed.join("\n"));
    }
}
