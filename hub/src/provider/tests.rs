//! What is sent, and what is reported, whatever the other side does.

use std::{net::SocketAddr, path::Path, time::Duration};

use lockstep_engine::grant::ProviderReply;
use lockstep_engine::time::Mono;
use lockstep_protocol::Secret;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{
    Provider, ProviderError,
    envelope::Envelope,
    reply::MAX_BODY,
    unruly::{Manner, Unruly},
};
use crate::{clock, config::Config};

/// Long enough for a busy machine; no test waits for it in vain.
const AMPLE: Duration = Duration::from_secs(20);
const TOKEN: &str = "rt &+/=é";

fn provider(endpoint: &str, more: &str) -> Provider {
    let text =
        format!("[providers.p]\ntoken_endpoint = \"{endpoint}\"\nclient_id = \"the app\"\nallow_http = true\n{more}");
    let config = Config::parse("test", &text, Path::new(""), std::iter::empty()).expect("settings");
    Provider::new("p", &config.providers["p"]).expect("provider")
}

fn at(address: SocketAddr, more: &str) -> Provider {
    provider(&format!("http://{address}/token"), more)
}

async fn redeem(provider: &Provider) -> ProviderReply {
    redeem_within(provider, AMPLE).await
}

async fn redeem_within(provider: &Provider, deadline: Duration) -> ProviderReply {
    provider.redeem(&Secret::new(TOKEN), None, AMPLE, deadline).await
}

/// What is reported when the other side answers these bytes.
async fn answer(bytes: impl Into<Vec<u8>>) -> ProviderReply {
    let server = Unruly::start(Manner::Say(bytes.into())).await;
    redeem(&at(server.address, "")).await
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn whole(reply: ProviderReply) -> (u16, Option<Duration>, String) {
    match reply {
        ProviderReply::Answered {
            status,
            retry_after,
            body,
        } => (status, retry_after, body.expose().to_owned()),
        other => panic!("no answer: {other:?}"),
    }
}

#[track_caller]
fn assert_lost(reply: &ProviderReply) {
    assert!(matches!(reply, ProviderReply::Lost(_)), "{reply:?}");
}

#[track_caller]
fn assert_not_sent(reply: &ProviderReply) {
    assert!(matches!(reply, ProviderReply::NotSent(_)), "{reply:?}");
}

/// Head and body of what was sent with these settings.
async fn sent(more: &str, scope: Option<&str>) -> (String, String) {
    let server = Unruly::start(Manner::Say(ok("{}"))).await;
    let provider = at(server.address, more);
    whole(provider.redeem(&Secret::new(TOKEN), scope, AMPLE, AMPLE).await);
    let request = server.only();
    let (head, body) = request.split_once("\r\n\r\n").expect("a whole request");
    (head.to_lowercase(), body.to_owned())
}

mod what_is_sent {
    use super::*;

    #[tokio::test]
    async fn a_public_client_sends_a_form_with_its_id() {
        let (head, body) = sent("", Some("a b")).await;
        assert!(head.starts_with("post /token http/1.1\r\n"), "{head}");
        assert!(
            head.contains("content-type: application/x-www-form-urlencoded"),
            "{head}"
        );
        assert!(head.contains("accept-encoding: identity"), "{head}");
        assert!(!head.contains("authorization"), "{head}");
        assert_eq!(
            body,
            "grant_type=refresh_token&refresh_token=rt+%26%2B%2F%3D%C3%A9&scope=a+b&client_id=the+app"
        );
    }

    /// Some servers do not take a body of unknown length.
    #[tokio::test]
    async fn the_length_is_told() {
        let (head, body) = sent("", None).await;
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
    }

    /// RFC 6749 section 2.3.1: both parts are form-urlencoded before they are joined.
    #[tokio::test]
    async fn basic_authentication_encodes_both_parts_and_keeps_the_id_out_of_the_body() {
        let (head, body) = sent("client_secret = \"p:ä%\"", None).await;
        // base64("the+app:p%3A%C3%A4%25")
        assert!(
            head.contains(&"authorization: Basic dGhlK2FwcDpwJTNBJUMzJUE0JTI1".to_lowercase()),
            "{head}"
        );
        assert_eq!(body, "grant_type=refresh_token&refresh_token=rt+%26%2B%2F%3D%C3%A9");
    }

    #[tokio::test]
    async fn post_authentication_puts_id_and_secret_into_the_body() {
        let (head, body) = sent("client_secret = \"s&t\"\nclient_auth = \"post\"", None).await;
        assert!(!head.contains("authorization"), "{head}");
        assert!(body.ends_with("&client_id=the+app&client_secret=s%26t"), "{body}");
    }

    #[tokio::test]
    async fn a_provider_that_wants_json_gets_json() {
        let (head, body) = sent("request_format = \"json\"", None).await;
        assert!(head.contains("content-type: application/json"), "{head}");
        let body: serde_json::Value = serde_json::from_str(&body).expect("json");
        assert_eq!(
            body,
            serde_json::json!({"grant_type": "refresh_token", "refresh_token": TOKEN, "client_id": "the app"})
        );
    }

    #[tokio::test]
    async fn the_secret_may_live_in_a_file_that_ends_with_a_newline() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("secret");
        std::fs::write(&file, "s3cret\n").expect("written");
        let (_, body) = sent(
            &format!("client_secret_file = \"{}\"\nclient_auth = \"post\"", file.display()),
            None,
        )
        .await;
        assert!(body.ends_with("client_secret=s3cret"), "{body}");
    }

    #[test]
    fn a_missing_secret_file_is_named() {
        let text = "[providers.p]\ntoken_endpoint = \"https://x.example/\"\nclient_id = \"a\"\nclient_secret_file = \"/nowhere\"";
        let config = Config::parse("test", text, Path::new(""), std::iter::empty()).expect("settings");
        let error = Provider::new("p", &config.providers["p"]).expect_err("no file");
        assert!(matches!(&error, ProviderError::SecretFile { .. }));
        assert!(
            error
                .to_string()
                .starts_with("provider p: client_secret_file /nowhere: "),
            "{error}"
        );
    }

    /// A pooled connection that died while idle is the classic way to send twice, or to be wrong about having sent.
    #[tokio::test]
    async fn every_redeem_has_a_connection_of_its_own() {
        let server = Unruly::start(Manner::SayAndHang(ok("{}"))).await;
        let provider = at(server.address, "");
        for _ in 0..3 {
            whole(redeem(&provider).await);
        }
        assert_eq!(server.seen().len(), 3);
    }

    #[tokio::test]
    async fn nothing_shows_a_secret() {
        let provider = provider("https://x.example/", "client_secret = \"s3cret\"");
        assert!(!format!("{provider:?}").contains("s3cret"));
        let basic = provider.credentials.authorization().expect("basic");
        assert!(!format!("{basic:?}").contains("Basic"), "{basic:?}");
    }
}

mod what_did_not_leave {
    use super::*;

    #[tokio::test]
    async fn connection_refused() {
        // Nobody listens there; a port that was free a moment ago may be another test's by now.
        assert_not_sent(&redeem(&provider("http://127.0.0.1:1/token", "")).await);
    }

    #[tokio::test]
    async fn an_unknown_host() {
        assert_not_sent(&redeem(&provider("http://no-such-host.invalid/token", "")).await);
    }

    #[tokio::test]
    async fn a_server_that_does_not_speak_tls() {
        let server = Unruly::start(Manner::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).await;
        assert_not_sent(&redeem_within(&provider(&format!("https://{}/token", server.address), ""), AMPLE).await);
        assert!(!server.only().contains("refresh"));
    }

    #[tokio::test]
    async fn a_tls_handshake_that_does_not_end() {
        let server = Unruly::start(Manner::Deaf).await;
        let provider = provider(&format!("https://{}/token", server.address), "");
        assert_not_sent(&redeem_within(&provider, Duration::from_millis(300)).await);
    }

    /// Until the connection stands time may have passed, asleep even: the last look at the clock is the one that counts.
    #[tokio::test]
    async fn what_is_late_when_the_connection_stands() {
        let server = Unruly::start(Manner::Say(ok("{}"))).await;
        let (body, seal) = Envelope::seal(Zeroizing::new(TOKEN.to_owned()), Mono(clock::mono().0 - 1));
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        let sent = client
            .post(format!("http://{}/token", server.address))
            .body(body)
            .send()
            .await;
        assert!(sent.is_err());
        assert!(seal.withdraw(), "it counts as not sent");
        assert!(server.seen().iter().all(|request| !request.contains(TOKEN)));
    }

    #[tokio::test]
    async fn what_is_withdrawn_before_the_connection_stands_never_leaves() {
        let server = Unruly::start(Manner::Say(ok("{}"))).await;
        let (body, seal) = Envelope::seal(Zeroizing::new(TOKEN.to_owned()), clock::mono() + AMPLE);
        assert!(seal.withdraw());
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        let sent = client
            .post(format!("http://{}/token", server.address))
            .body(body)
            .send()
            .await;
        assert!(sent.is_err());
        assert!(server.seen().iter().all(|request| !request.contains(TOKEN)));
    }
}

mod what_may_have_arrived {
    use super::*;

    /// A redeem that ends by its deadline. On a busy machine nothing may have left by then: once more, with more time.
    async fn redeem_in_vain(server: &Unruly) -> ProviderReply {
        let mut deadline = Duration::from_millis(300);
        loop {
            let start = Instant::now();
            let reply = redeem_within(&at(server.address, ""), deadline).await;
            assert!(start.elapsed() < deadline + AMPLE);
            if !matches!(reply, ProviderReply::NotSent(_)) || deadline > AMPLE {
                assert!(start.elapsed() >= deadline);
                return reply;
            }
            assert!(server.seen().iter().all(|request| !request.contains("refresh_token=")));
            deadline *= 4;
        }
    }

    #[tokio::test]
    async fn closed_after_reading() {
        let server = Unruly::start(Manner::CloseAfterReading).await;
        assert_lost(&redeem(&at(server.address, "")).await);
        assert!(server.only().contains("refresh_token="), "it did arrive, once");
    }

    /// Whichever is noticed first, "not sent" must be true.
    #[tokio::test]
    async fn closed_before_reading() {
        let server = Unruly::start(Manner::CloseAtOnce).await;
        let reply = redeem(&at(server.address, "")).await;
        assert!(!matches!(reply, ProviderReply::Answered { .. }), "{reply:?}");
        assert_eq!(server.seen().len(), 1, "no second try");
    }

    #[tokio::test]
    async fn silence_until_the_deadline() {
        for manner in [Manner::Silent, Manner::Deaf] {
            assert_lost(&redeem_in_vain(&Unruly::start(manner).await).await);
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_until_the_deadline() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access".to_vec();
        assert_lost(&redeem_in_vain(&Unruly::start(Manner::SayAndHang(head)).await).await);
    }

    #[tokio::test]
    async fn a_body_that_trickles_past_the_deadline() {
        let server = Unruly::start(Manner::SayForEver(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), b" ".to_vec())).await;
        assert_lost(&redeem_in_vain(&server).await);
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_off() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Le",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_token\":\"a\"",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        ] {
            assert_lost(&answer(bytes).await);
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_no_http() {
        for bytes in [
            "",
            "garbage\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnot a length",
        ] {
            assert_lost(&answer(bytes).await);
        }
    }
}

mod what_was_answered {
    use super::*;

    #[tokio::test]
    async fn any_status_with_any_body() {
        for (bytes, status, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "{}"),
            ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 400, ""),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
            (
                "HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\n\r\n<html>oops",
                500,
                "<html>oops",
            ),
            (
                "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
                401,
                "{}",
            ),
            ("HTTP/1.0 503 Busy\r\n\r\n", 503, ""),
        ] {
            assert_eq!(whole(answer(bytes).await), (status, None, body.to_owned()), "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_text_is_kept_as_well_as_it_goes() {
        let (status, _, body) = whole(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\x00a".to_vec()).await);
        assert_eq!((status, body.as_str()), (200, "\u{fffd}\0a"));
    }

    /// What is compressed without being asked for is not unpacked: there is no bomb.
    #[tokio::test]
    async fn a_compressed_body_is_left_as_it_is() {
        let (_, _, body) =
            whole(answer("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}").await);
        assert_eq!(body, "{}");
    }

    #[tokio::test]
    async fn a_body_without_end_is_cut() {
        let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        let server = Unruly::start(Manner::SayForEver(head, vec![b'x'; 10_000])).await;
        let (status, _, body) = whole(redeem(&at(server.address, "")).await);
        assert_eq!((status, body.len()), (200, MAX_BODY));
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let elsewhere = Unruly::start(Manner::Say(ok("{}"))).await;
        for status in [301, 302, 303, 307, 308] {
            let bytes = format!(
                "HTTP/1.1 {status} Moved\r\nLocation: http://{}/token\r\nContent-Length: 0\r\n\r\n",
                elsewhere.address
            );
            assert_eq!(whole(answer(bytes).await).0, status);
        }
        assert!(elsewhere.seen().is_empty(), "the refresh token went elsewhere");
    }

    #[tokio::test]
    async fn retry_after_in_seconds_or_as_a_date() {
        let soon = std::time::SystemTime::now() + Duration::from_secs(1000);
        let date = httpdate::fmt_http_date(soon);
        for (text, least, most) in [
            ("120", 120, 120),
            (date.as_str(), 900, 1000),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 0),
        ] {
            let bytes = format!("HTTP/1.1 429 Slow down\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n");
            let after = whole(answer(bytes).await).1.expect("a span").as_secs();
            assert!((least..=most).contains(&after), "{text}: {after}");
        }
        for text in ["soon", "-1", "", "1.5"] {
            let bytes = format!("HTTP/1.1 429 Slow down\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(whole(answer(bytes).await).1, None, "{text}");
        }
    }
}

mod permits {
    use super::*;
    use crate::provider::Limiter;

    #[tokio::test(start_paused = true)]
    async fn no_more_at_once_than_allowed() {
        let limiter = Limiter::new(2, 0.0);
        let mut held = limiter.try_permits(5);
        assert_eq!(held.len(), 2);
        assert!(limiter.permit(Duration::from_secs(3)).await.is_err());
        held.pop();
        assert!(limiter.permit(Duration::ZERO).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_given_back_goes_to_who_waited_first() {
        let limiter = Limiter::new(1, 0.0);
        let held = limiter.permit(AMPLE).await.expect("free");
        let mut first = Box::pin(limiter.permit(AMPLE));
        assert!(futures::poll!(&mut first).is_pending());
        drop(held);
        assert!(
            limiter.try_permits(1).is_empty(),
            "the scheduler does not jump the line"
        );
        assert!(first.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_would_wait_too_long_is_told_when_to_come_again() {
        let limiter = Limiter::new(10, 0.5);
        let start = Instant::now();
        drop(limiter.permit(Duration::ZERO).await.expect("the first is free"));
        assert_eq!(
            limiter.permit(Duration::from_secs(1)).await.err(),
            Some(Duration::from_secs(2))
        );
        drop(limiter.permit(Duration::from_secs(2)).await.expect("worth the wait"));
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn over_time_no_more_start_than_the_rate_allows() {
        let limiter = Limiter::new(1000, 10.0);
        let start = Instant::now();
        let mut started = 0;
        while start.elapsed() < Duration::from_secs(10) {
            if limiter.permit(Duration::from_secs(1)).await.is_ok() {
                started += 1;
            }
        }
        // A second's worth at once after a pause, then the rate.
        assert!((100..=111).contains(&started), "{started}");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(
            limiter.try_permits(1000).len(),
            10,
            "a pause saves up one second, no more"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_takes_nothing_along() {
        let limiter = Limiter::new(1, 0.0);
        let held = limiter.permit(AMPLE).await.expect("free");
        assert!(limiter.permit(Duration::from_secs(1)).await.is_err());
        drop(held);
        assert!(limiter.permit(Duration::ZERO).await.is_ok());
    }
}
