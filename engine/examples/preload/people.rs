//! Made-up people: when each of them is there.

use crate::chance::Chance;

pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const HOUR: i64 = 60;
pub(crate) const DAY: i64 = 24 * HOUR;

/// From when to when somebody is there, in minutes since the beginning; in order, not overlapping.
pub(crate) type Visits = Vec<(i64, i64)>;

/// A hundred people are spread over the world like this: hours east of UTC, and how many of them.
const ZONES: [(i64, u64); 6] = [(-8, 20), (-5, 25), (0, 10), (1, 25), (8, 12), (9, 8)];

/// One person's visits over so many days.
pub(crate) fn visits(chance: &mut Chance, days: i64) -> Visits {
    let kind = chance.below(100);
    if kind < 5 {
        // A server: always there.
        return vec![(i64::try_from(chance.below(60)).unwrap_or(0), days * DAY)];
    }
    let east = zone(chance);
    // Six in ten begin when a shift does, on the hour; the others have a time of their own. One in ten works at night.
    let shift = if kind < 15 { 21 * HOUR } else { 9 * HOUR };
    let (begins, give_or_take) = if chance.percent(60) {
        (shift, 10)
    } else {
        (shift + chance.around(90), 30)
    };
    let weekends = chance.percent(10);
    let off = chance
        .percent(30)
        .then(|| days / 2 + i64::try_from(chance.below(14)).unwrap_or(0));
    let mut visits = Visits::new();
    for day in 0..days {
        let midnight = day * DAY - east * HOUR;
        let is_off = off.is_some_and(|from| (from..from + 7).contains(&day)) || chance.percent(4);
        if is_off || (day % 7 >= 5 && !weekends) {
            // An outlier now and then.
            if chance.percent(3) {
                let from = midnight + i64::try_from(chance.below(1_440)).unwrap_or(0);
                visits.push((from, from + 10));
            }
            continue;
        }
        let from = midnight + begins + chance.around(give_or_take);
        let lunch = from + 3 * HOUR + chance.around(40);
        let back = lunch + 40 + chance.around(20);
        visits.push((from, lunch));
        visits.push((back, from + 8 * HOUR + 30 + chance.around(60)));
    }
    tidy(visits, days)
}

fn zone(chance: &mut Chance) -> i64 {
    let mut left = chance.below(100);
    for (east, people) in ZONES {
        match left.checked_sub(people) {
            None => return east,
            Some(rest) => left = rest,
        }
    }
    0
}

fn tidy(mut visits: Visits, days: i64) -> Visits {
    visits.retain(|(from, to)| *from >= 0 && *to <= days * DAY && from < to);
    visits.sort_unstable();
    let mut tidy = Visits::new();
    for (from, to) in visits {
        match tidy.last_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ => tidy.push((from, to)),
        }
    }
    tidy
}
