//! Devices and slaves.

use std::time::Duration;

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, Seq};
use uuid::Uuid;

use super::{
    super::{CommitRow, Device, DeviceKind, Seen, Slave},
    world::*,
};

pub(in super::super) async fn a_device_is_what_was_enrolled(store: AnyStore) {
    let nobody = DeviceId(Uuid::new_v4());
    assert!(store.device(nobody).await.unwrap().is_none());
    assert!(store.devices(&alice()).await.unwrap().is_empty());
    let mut all = Vec::new();
    for kind in DeviceKind::ALL {
        let one = Device {
            kind,
            redeemer: false,
            may_offer: true,
            priority: None,
            ..device(&alice())
        };
        store.enrol(one.clone()).await.unwrap();
        store.enrol(one.clone()).await.unwrap();
        assert_eq!(store.device(one.id).await.unwrap(), Some(one.clone()));
        all.push(one);
    }
    let other = device(&user("bob"));
    store.enrol(other.clone()).await.unwrap();
    assert!(
        store
            .enrol(Device {
                user: user("bob"),
                ..all[0].clone()
            })
            .await
            .is_err(),
        "the id is taken"
    );

    let mut listed = store.devices(&alice()).await.unwrap();
    listed.sort_by_key(|device| device.id);
    all.sort_by_key(|device| device.id);
    assert_eq!(listed, all);
    let state = store.user(&alice()).await.unwrap().unwrap();
    assert_eq!((state.seq, state.grants.len()), (Seq(0), 0), "enrolment makes the user");
    done(&store, login()).await;
    store.enrol(device(&alice())).await.unwrap();
    assert_eq!(
        store.seqs(&[alice()]).await.unwrap(),
        [(alice(), Seq(1))],
        "and leaves one alone that is there"
    );
}

pub(in super::super) async fn a_refresh_token_advances_once_per_generation(store: AnyStore) {
    let one = device(&alice());
    assert!(!store.advance(one.id, 1, hash(2)).await.unwrap(), "no such device");
    store.enrol(one.clone()).await.unwrap();
    assert!(!store.advance(one.id, 2, hash(2)).await.unwrap());
    assert!(store.advance(one.id, 1, hash(2)).await.unwrap());
    assert!(!store.advance(one.id, 1, hash(3)).await.unwrap());
    let moved = Device {
        generation: 2,
        newest: hash(2),
        parent: Some(hash(1)),
        ..one.clone()
    };
    assert_eq!(store.device(one.id).await.unwrap(), Some(moved));
    store.revoke(one.id, Unix(10)).await.unwrap();
    assert!(!store.advance(one.id, 2, hash(3)).await.unwrap(), "revoked");
}

pub(in super::super) async fn of_many_who_advance_at_once_one_wins(store: AnyStore) {
    let one = device(&alice());
    store.enrol(one.clone()).await.unwrap();
    let answers = at_once(32, |number| {
        let store = AnyStore::clone(&store);
        let id = one.id;
        async move { store.advance(id, 1, hash(u8::try_from(number).unwrap())).await.unwrap() }
    })
    .await;
    assert_eq!(answers.iter().filter(|won| **won).count(), 1);
    assert_eq!(store.device(one.id).await.unwrap().unwrap().generation, 2);
}

pub(in super::super) async fn a_revoked_device_is_out_and_listed(store: AnyStore) {
    let (one, two, three) = (device(&alice()), device(&alice()), device(&alice()));
    assert!(!store.revoke(one.id, Unix(10)).await.unwrap(), "no such device");
    for each in [&one, &two, &three] {
        store.enrol(each.clone()).await.unwrap();
    }
    assert!(store.revoke(one.id, Unix(10)).await.unwrap());
    assert!(store.revoke(two.id, Unix(20)).await.unwrap());
    assert!(!store.revoke(one.id, Unix(30)).await.unwrap(), "once");
    assert_eq!(
        store.device(one.id).await.unwrap(),
        Some(Device {
            revoked_at: Some(Unix(10)),
            ..one.clone()
        })
    );
    assert_eq!(store.devices(&alice()).await.unwrap(), [three]);
    assert_eq!(
        store.revoked_since(Unix(10)).await.unwrap(),
        [(one.id, Unix(10)), (two.id, Unix(20))]
    );
    assert_eq!(store.revoked_since(Unix(11)).await.unwrap(), [(two.id, Unix(20))]);
    assert!(store.revoked_since(Unix(21)).await.unwrap().is_empty());
}

pub(in super::super) async fn what_was_seen_is_kept_by_maximum(store: AnyStore) {
    let one = device(&alice());
    store.enrol(one.clone()).await.unwrap();
    let saw = |at, acked| Seen {
        device: one.id,
        at: Unix(at),
        acked: Seq(acked),
    };
    let unknown = Seen {
        device: DeviceId(Uuid::new_v4()),
        ..saw(1, 1)
    };
    store.seen(vec![saw(30, 5), saw(40, 4), unknown]).await.unwrap();
    store.seen(vec![saw(20, 6)]).await.unwrap();
    store.seen(vec![]).await.unwrap();
    let expected = Device {
        last_seen: Some(Unix(40)),
        acked: Seq(6),
        ..one.clone()
    };
    // Written lazily.
    let mut kept = None;
    for _ in 0..12_000 {
        kept = store.device(one.id).await.unwrap();
        if kept.as_ref() == Some(&expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{kept:?}");
}

pub(in super::super) async fn a_slave_lives_as_long_as_its_device_and_grant(store: AnyStore) {
    let one = device(&alice());
    store.enrol(one.clone()).await.unwrap();
    let of = |grant: &str| Slave {
        user: alice(),
        device: one.id,
        grant: name(grant),
        made_at: Unix(5),
    };
    for (grant, number) in [("a/1", 1), ("b/1", 2)] {
        done(
            &store,
            CommitRow {
                grant: name(grant),
                ..login()
            },
        )
        .await;
        store.put_slave(hash(number), of(grant)).await.unwrap();
        assert_eq!(store.slave(hash(number)).await.unwrap(), Some(of(grant)));
    }
    assert!(store.slave(hash(3)).await.unwrap().is_none());

    store.delete_grant(&alice(), &name("a/1")).await.unwrap();
    assert!(store.slave(hash(1)).await.unwrap().is_none());
    done(
        &store,
        CommitRow {
            grant: name("a/1"),
            from_version: lockstep_protocol::Version(1),
            ..login()
        },
    )
    .await;
    assert!(
        store.slave(hash(1)).await.unwrap().is_none(),
        "a grant made anew has no slaves of old"
    );
    assert_eq!(store.slave(hash(2)).await.unwrap(), Some(of("b/1")));

    store.revoke(one.id, Unix(10)).await.unwrap();
    assert!(store.slave(hash(2)).await.unwrap().is_none());
    assert!(store.slaves(one.id).await.unwrap().is_empty());
}

pub(in super::super) async fn slaves_are_listed_and_dropped_one_by_one(store: AnyStore) {
    let one = device(&alice());
    store.enrol(one.clone()).await.unwrap();
    done(&store, login()).await;
    let slave = Slave {
        user: alice(),
        device: one.id,
        grant: work(),
        made_at: Unix(5),
    };
    for number in 1..=3 {
        store.put_slave(hash(number), slave.clone()).await.unwrap();
    }
    assert!(store.drop_slave(hash(2)).await.unwrap());
    assert!(!store.drop_slave(hash(2)).await.unwrap());
    assert!(store.slave(hash(2)).await.unwrap().is_none());
    let mut listed = store.slaves(one.id).await.unwrap();
    listed.sort_by_key(|(hash, _)| *hash);
    assert_eq!(listed, [(hash(1), slave.clone()), (hash(3), slave)]);
}
