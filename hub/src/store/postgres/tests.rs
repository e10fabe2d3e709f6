//! What the suite cannot ask of every store: many nodes at once, and servers that go away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lockstep_engine::{grant::Verdict, record::Health, time::Unix};
use lockstep_protocol::{Epoch, Seq, Version};
use lockstep_tests::Postgres as Server;

use super::super::{
    ClaimRow, Claimed, CommitRow, Committed, DueQuery, Pooling, SettleRow, StoreError,
    suite::{Made, conformance, world::*},
};

/// Long enough for a busy machine.
const AMPLE: Duration = Duration::from_secs(120);

async fn open(url: &str) -> AnyStore {
    open_waiting(url, AMPLE).await
}

/// One that is soon told that a server is gone.
async fn open_hasty(url: &str) -> AnyStore {
    open_waiting(url, Duration::from_secs(3)).await
}

async fn open_waiting(url: &str, connect_within: Duration) -> AnyStore {
    let pooling = Pooling {
        connect_within,
        statement_timeout: AMPLE,
        start_within: AMPLE,
        ..Pooling::default()
    };
    Arc::new(super::open(url, &pooling).await.unwrap())
}

async fn make() -> Made {
    Made {
        store: open(&Server::database().await).await,
        _keep: Box::new(()),
    }
}

conformance!(make);

/// Twelve commits of one grant, one after the other, with all that goes on beside them.
async fn go_through(store: AnyStore, grant: String) {
    let grant = name(&grant);
    for from in 0..12 {
        if from > 0 {
            let row = ClaimRow {
                grant: grant.clone(),
                from_version: Version(from),
                ..claim()
            };
            let lease = row.lease;
            assert!(matches!(store.claim(row).await.unwrap(), Claimed::Won(_)));
            assert!(store.renew(&alice(), &grant, lease, 60_000).await.unwrap());
        }
        let row = CommitRow {
            grant: grant.clone(),
            ..refresh(from, lease())
        };
        assert!(matches!(store.commit(row).await.unwrap(), Committed::Done(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_seq_of_a_user_is_given_twice_or_left_out_and_every_change_counts() {
    let url = Server::database().await;
    let nodes = [open(&url).await, open(&url).await];
    at_once(8, |number| {
        go_through(AnyStore::clone(&nodes[number % 2]), format!("example/{number}"))
    })
    .await;
    let state = nodes[0].user(&alice()).await.unwrap().unwrap();
    assert_eq!(state.seq, Seq(8 * 12));
    let mut seqs: Vec<Seq> = state.grants.iter().map(|(_, record)| record.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!((seqs.len(), seqs.last()), (8, Some(&Seq(8 * 12))));
    let revisions: u64 = state.grants.iter().map(|(_, record)| record.revision).sum();
    assert_eq!(
        nodes[1].mark().await.unwrap().commits,
        revisions,
        "the mark counts each, exactly"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_buried_while_their_grants_move_leave_no_knot() {
    let url = Server::database().await;
    let nodes = [open(&url).await, open(&url).await];
    for number in 0..8 {
        let row = CommitRow {
            grant: name(&format!("example/{number}")),
            ..login()
        };
        done(&nodes[0], row).await;
    }
    at_once(16, |number| {
        let store = AnyStore::clone(&nodes[number % 2]);
        async move {
            let row = CommitRow {
                grant: name(&format!("example/{}", number % 8)),
                ..refresh(1, lease())
            };
            if number == 7 {
                store.delete_user(&alice(), Unix(50)).await.map(drop)
            } else {
                store.commit(row).await.map(drop)
            }
        }
    })
    .await
    .into_iter()
    .for_each(|answer| answer.unwrap());
    let state = nodes[0].user(&alice()).await.unwrap().unwrap();
    let mut seqs: Vec<Seq> = state.grants.iter().map(|(_, record)| record.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 8);
    assert!(*seqs.last().unwrap() <= state.seq);
}

#[tokio::test]
async fn a_thousand_due_grants_cost_tens_of_statements() {
    let url = Server::database().await;
    let store = open(&url).await;
    for number in 0..1_000 {
        let row = CommitRow {
            user: user(&format!("user-{number}")),
            due_at: Some(Unix(10 + number)),
            ..login()
        };
        done(&store, row).await;
    }
    // Each statement that writes is a transaction of its own, and takes a number.
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let number = async || -> i64 {
        sqlx::query_scalar("SELECT pg_current_xact_id()::text::bigint")
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    let before = number().await;
    let mut found = Vec::new();
    for _ in 0..16 {
        let query = DueQuery {
            holder: holder("here", 1),
            ..query(64)
        };
        found.extend(store.claim_due(query).await.unwrap());
    }
    assert_eq!(found.len(), 1_000);
    let in_order = |pair: &[super::super::Due]| pair[0].record.due_at <= pair[1].record.due_at;
    assert!(found.windows(2).all(in_order), "oldest first");
    let spent = number().await - before;
    assert!(spent < 100, "{spent} transactions");
}

#[tokio::test]
async fn a_word_with_a_zero_in_it_is_kept_as_nearly_as_can_be() {
    let store = make().await.store;
    done(&store, login()).await;
    let verdict = Verdict {
        reason: Some("bad\0word".into()),
        doubt: Some(doubt("bad\0doubt")),
        ..suspect()
    };
    let row = SettleRow {
        verdict,
        ..settle(lease())
    };
    let record = store.settle(row).await.unwrap().unwrap();
    assert_eq!(record.reason.as_deref(), Some("bad\u{fffd}word"));
    assert_eq!(record.doubt.unwrap().reason, "bad\u{fffd}doubt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_certainly_does_nothing_and_is_found_again() {
    let mut server = Server::start().await;
    let store = open_hasty(&server.url()).await;
    let record = done(&store, login()).await;
    server.stop_at_once().await;
    // A connection from before may still be thought to live once; after that there is none.
    let mut refused = false;
    for _ in 0..4 {
        let error = store.claim(claim()).await.unwrap_err();
        refused |= matches!(error, StoreError::Refused(_));
        assert!(!matches!(error, StoreError::Corrupt(_)), "{error}");
    }
    assert!(refused);
    assert!(store.user(&alice()).await.is_err());
    server.start_again().await;
    let until = Instant::now() + AMPLE;
    let found = loop {
        match store.load(&alice(), &work()).await {
            Ok(found) => break found,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    };
    assert_eq!(found, Some(record), "what was committed is there, and nothing else");
    won(&store, claim()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_behind_is_left_alone_until_it_is_judged() {
    let mut server = Server::start().await;
    let store = open_hasty(&server.url()).await;
    done(&store, login()).await;
    server.stop_at_once().await;
    server.back_up().await;
    server.start_again().await;
    let until = Instant::now() + AMPLE;
    while store.commit(refresh(1, lease())).await.is_err() {
        assert!(Instant::now() < until);
    }
    let seen = store.mark().await.unwrap();
    server.stop_at_once().await;
    server.restore().await;
    server.start_again().await;

    let until = Instant::now() + AMPLE;
    let found = loop {
        match store.mark().await {
            Ok(mark) => break mark,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    };
    assert!(found.is_behind(seen));
    for _ in 0..3 {
        assert!(
            store.claim(claim()).await.is_err(),
            "version 1 may be used up long since"
        );
    }
    let mark = store.restored(Epoch(7), "went back").await.unwrap();
    assert_eq!(mark.epoch, Epoch(7));
    let record = load(&store).await;
    assert_eq!((record.version, record.health), (Version(1), Health::Suspect));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let pooling = Pooling {
        start_within: Duration::from_millis(500),
        ..Pooling::default()
    };
    let error = super::open("postgres://hub:secret@127.0.0.1:1/x", &pooling)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, StoreError::Refused(_)));
    let words = error.to_string();
    assert!(words.contains("127.0.0.1:1") && !words.contains("secret"), "{words}");
}

#[tokio::test]
async fn a_wrong_database_is_not_tried_again() {
    let url = Server::database().await;
    let wrong = format!("{url}_not");
    let started = Instant::now();
    let error = super::open(&wrong, &Pooling::default())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("does not exist"), "{error}");
    assert!(started.elapsed() < Pooling::default().start_within, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_make_the_tables_once() {
    let url = Server::database().await;
    let stores = at_once(6, |_| {
        let url = url.clone();
        async move { open(&url).await }
    })
    .await;
    let first = stores[0].mark().await.unwrap();
    for store in &stores {
        assert_eq!(store.mark().await.unwrap(), first);
    }
}
