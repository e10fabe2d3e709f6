//! The tests' own provider must be as strict as it claims: everything else is judged by it.

use std::time::Duration;

use lockstep_tests::{
    Answer, Fault, Oidc, Postgres, Provider, Redis,
    admin::http,
    provider::{Gate, Outcome, Rules},
};

async fn redeem(provider: &Provider, refresh_token: &str) -> reqwest::Result<Answer> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
    Answer::try_to(http().post(provider.token_endpoint()).form(&form)).await
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_reuse_ends_the_family() {
    let provider = Provider::start().await;
    let first = provider.login("main");
    let second = redeem(&provider, &first.refresh_token)
        .await
        .expect("an answer")
        .expect(200);
    assert!(provider.is_live(second["access_token"].as_str().expect("a token")));

    let reuse = redeem(&provider, &first.refresh_token)
        .await
        .expect("an answer")
        .expect(400);

    assert_eq!(reuse["error"], "invalid_grant");
    assert!(
        !provider.is_live(second["access_token"].as_str().expect("a token")),
        "the winner's tokens die too"
    );
    let outcomes: Vec<_> = provider
        .calls_of("main")
        .iter()
        .map(|call| (call.generation, call.outcome))
        .collect();
    assert_eq!(outcomes, [(1, Outcome::Issued), (1, Outcome::Reused)]);
}

#[tokio::test]
async fn inside_the_grace_the_same_pair_comes_again() {
    let rules = Rules {
        grace: Duration::from_secs(60),
        ..Rules::default()
    };
    let provider = Provider::with(rules).await;
    let first = provider.login("main");
    let once = redeem(&provider, &first.refresh_token)
        .await
        .expect("an answer")
        .expect(200);
    let again = redeem(&provider, &first.refresh_token)
        .await
        .expect("an answer")
        .expect(200);
    assert_eq!(once, again);
}

#[tokio::test]
async fn faults_strike_before_or_after_the_rotation() {
    let provider = Provider::start().await;
    let first = provider.login("main");
    provider.fault(Fault::CutBefore);
    assert!(redeem(&provider, &first.refresh_token).await.is_err());
    assert_eq!(provider.newest("main").generation, 1);
    provider.fault(Fault::CutAfter);
    assert!(redeem(&provider, &first.refresh_token).await.is_err());
    assert_eq!(provider.newest("main").generation, 2);
}

#[tokio::test]
async fn overlapping_calls_are_found() {
    let provider = Provider::start().await;
    let first = provider.login("main");
    let gate = Gate::closed();
    provider.fault(Fault::HoldBefore(gate.clone()));
    let (_, _) = tokio::join!(redeem(&provider, &first.refresh_token), async {
        provider.called("main", 1, Duration::from_secs(10)).await;
        redeem(&provider, &first.refresh_token).await.ok();
        gate.open();
    });
    assert_eq!(provider.overlapping().len(), 1);
}

#[tokio::test]
async fn a_closed_provider_refuses_connections_until_it_is_opened_again() {
    let provider = Provider::start().await;
    let first = provider.login("main");
    provider.close();
    assert!(redeem(&provider, &first.refresh_token).await.is_err());
    provider.reopen().await;
    redeem(&provider, &first.refresh_token)
        .await
        .expect("an answer")
        .expect(200);
}

#[tokio::test]
async fn the_real_provider_grants_by_code_and_by_hand_and_rotates_strictly() {
    let oidc = Oidc::start(3).await;
    for login in [oidc.log_in().await, oidc.mint().await] {
        let refresh_token = login["refresh_token"].as_str().expect("a token");
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", "app"),
        ];
        for status in [200, 400] {
            Answer::to(http().post(oidc.token_endpoint()).form(&form))
                .await
                .expect(status);
        }
    }
    assert_eq!(oidc.refreshes().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_redis_come_back_after_they_were_killed() {
    let (mut postgres, mut redis) = tokio::join!(Postgres::start(), Redis::start());
    postgres
        .run("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        .await;
    postgres.stop_at_once().await;
    redis.kill9().await;
    postgres.start_again().await;
    redis.start_again().await;
    assert_eq!(postgres.run("SELECT n FROM kept").await, "7");
    assert!(postgres.dir().join("data").is_dir() && redis.url().starts_with("redis://127.0.0.1:"));
}
