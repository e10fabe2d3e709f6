use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const LEAD: Duration = Duration::from_secs(300);

/// The same number again and again.
struct Always(u64);

impl Entropy for Always {
    fn bits(&mut self) -> u64 {
        self.0
    }
}

/// Midnight of a day, counted from a Monday, in the middle of nowhere in particular.
fn day(n: u32) -> Unix {
    Unix(1_800_000_000_000 / 604_800_000 * 604_800_000) + DAY * n
}

fn at(days: u32, hour: u32) -> Unix {
    day(days) + HOUR * hour
}

/// Somebody who is there from 9 to 17 on the first five days of each of `weeks` weeks.
fn worker(weeks: u32) -> Hours {
    let mut hours = Hours::new(at(0, 9));
    for n in (0..weeks * 7).filter(|n| n % 7 < 5) {
        (9..17).for_each(|hour| {
            hours.learn(at(n, hour));
        });
    }
    hours
}

fn life(refreshed_at: Unix) -> Life {
    Life {
        refreshed_at,
        expires_at: refreshed_at + HOUR,
        refresh_expires_at: None,
    }
}

fn wake(hours: &Hours, life: Life, bits: u64) -> Option<Unix> {
    wake_at(hours, life, LEAD, HOUR, &mut Always(bits))
}

#[test]
fn hours_seen_last_week_are_expected() {
    let hours = worker(1);
    assert!(hours.expects(at(7, 9)) && hours.expects(at(11, 16)));
    assert!(!hours.expects(at(7, 8)) && !hours.expects(at(7, 17)) && !hours.expects(at(12, 9)));
    assert_eq!(hours.next_expected(at(7, 8)), Some(at(7, 9)));
    assert_eq!(hours.next_expected(at(7, 10) + LEAD), Some(at(7, 10) + LEAD), "now");
    assert_eq!(hours.next_expected(at(4, 17)), Some(at(7, 9)), "after the weekend");
}

#[test]
fn a_week_off_changes_nothing_and_more_is_forgotten() {
    let mut once = Hours::new(at(0, 3));
    assert!(once.expects(at(7, 3)), "once counts for a week");
    assert!(!once.expects(at(14, 3)));
    assert_eq!(once.next_expected(at(8, 0)), None);
    let usual = worker(8);
    assert!(usual.expects(at(63, 9)), "a week off");
    assert!(!usual.expects(at(70, 9)), "two weeks off");
    once.learn(at(7 * 500, 3));
    assert!(!once.expects(at(7 * 500 + 1, 3)) && once.expects(at(7 * 501, 3)));
}

#[test]
fn learning_tells_news_and_stands_clocks_that_jump() {
    let mut hours = Hours::new(at(0, 9));
    assert!(!hours.learn(at(0, 9) + LEAD), "the same hour");
    assert!(hours.learn(at(0, 10)));
    hours.learn(Unix(u64::MAX));
    assert!(hours.learn(at(0, 9)), "the clock came back");
    assert!(hours.expects(at(7, 9)));
    hours.learn(Unix(0));
}

#[test]
fn bytes_of_another_length_are_not_hours() {
    let bytes = worker(1).to_bytes();
    assert_eq!(bytes.len(), 176);
    assert_eq!(Hours::from_bytes(&bytes), Some(worker(1)));
    assert_eq!(Hours::from_bytes(&bytes[1..]), None);
    assert_eq!(Hours::from_bytes(&[bytes.as_slice(), &[0]].concat()), None);
    assert_eq!(Hours::from_bytes(&[]), None);
}

#[test]
fn nothing_sleeps_before_a_week_is_known() {
    let hours = worker(1);
    assert_eq!(wake(&hours, life(at(4, 20)), 0), None, "five days are known");
    assert!(wake(&hours, life(at(7, 20)), 0).is_some());
}

#[test]
fn whoever_is_expected_is_refreshed_when_it_is_due() {
    let hours = worker(2);
    assert_eq!(wake(&hours, life(at(14, 10)), 0), None, "in the middle of the day");
    assert_eq!(wake(&hours, life(at(14, 8)), 0), None, "it expires as the day begins");
}

#[test]
fn a_sleeping_grant_wakes_before_its_user_spread_over_the_tokens_life() {
    let hours = worker(2);
    let evening = life(at(14, 17));
    assert_eq!(wake(&hours, evening, 0), Some(at(15, 9).minus(LEAD)), "at the latest");
    let most = u64::try_from((HOUR - LEAD * 2).as_millis()).unwrap();
    assert_eq!(wake(&hours, evening, most), Some(at(15, 8) + LEAD), "at the earliest");
    let friday = life(at(18, 17));
    assert_eq!(wake(&hours, friday, 0), Some(at(21, 9).minus(LEAD)), "over the weekend");
    // The token that it gets then is good when the user comes, and due when the user is expected.
    let early = life(at(15, 8) + LEAD);
    assert_eq!(wake(&hours, early, 0), None);
}

#[test]
fn a_long_lived_token_is_spread_no_further_than_asked() {
    let hours = worker(2);
    let long = Life {
        refreshed_at: at(18, 12),
        expires_at: at(18, 20),
        refresh_expires_at: None,
    };
    let most = u64::try_from(HOUR.as_millis()).unwrap();
    assert_eq!(wake(&hours, long, most), Some(at(21, 8).minus(LEAD)));
}

#[test]
fn a_refresh_token_is_not_left_to_expire() {
    let hours = worker(2);
    let friday = Life {
        refresh_expires_at: Some(at(19, 17)),
        ..life(at(18, 17))
    };
    assert_eq!(wake(&hours, friday, 0), Some(at(19, 16)));
    let at_once = Life {
        refresh_expires_at: Some(at(18, 18)),
        ..friday
    };
    assert_eq!(wake(&hours, at_once, 0), None, "no later than it is due");
}

#[test]
fn who_comes_no_more_is_looked_at_once_a_week() {
    let hours = worker(2);
    let gone = life(at(40, 12));
    assert_eq!(wake(&hours, gone, 0), Some((gone.expires_at + WEEK).minus(LEAD)));
}

#[test]
fn short_tokens_do_not_upset_the_arithmetic() {
    let hours = worker(2);
    for millis in [0, 1, 3_000, 599_999] {
        let short = Life {
            refreshed_at: at(18, 20),
            expires_at: at(18, 20) + Duration::from_millis(millis),
            refresh_expires_at: None,
        };
        let wake = wake(&hours, short, u64::MAX).expect("it sleeps");
        assert!(wake > at(20, 0) && wake <= at(21, 9));
    }
}
