//! A month of synthetic days: what preloading does to the provider's busiest minute, and to the first token that a user
//! meets.
//!
//! ```sh
//! cargo run --release -p lockstep-engine --example preload -- --users 20000 --seed 1
//! ```
//!
//! People in six timezones come to work around nine (six in ten at nine sharp), have lunch, go home around half past five,
//! and take weekends, days and weeks off; some work at night, some never sleep, some look in at odd hours. The real rules of `lockstep_engine::preload`
//! decide when each grant is refreshed; only the people are made up. Three ways to run a hub are compared:
//!
//! - *on demand*: grants in use are refreshed ahead of expiry, all others when their user comes back;
//! - *always*: every grant is refreshed ahead of expiry, day and night;
//! - *preload*: grants in use, and those whose user is expected.
#![expect(clippy::print_stdout, reason = "figures for whoever runs it")]

mod chance;
mod people;
mod run;

use chance::Chance;
use run::{Figures, WEEKS, Way};

fn main() {
    let users = argument("--users").unwrap_or(20_000);
    let seed = argument("--seed").unwrap_or(1);
    println!("{users} users, {WEEKS} weeks counted after two weeks of learning, tokens of an hour, seed {seed}\n");
    println!("| | redeems | in the busiest minute | in the busiest five | first token of a visit was fresh |");
    println!("|---|---|---|---|---|");
    for way in Way::ALL {
        println!("{}", line(way, &run::month(way, users, seed)));
    }
}

fn line(way: Way, figures: &Figures) -> String {
    format!(
        "| {} | {} | {} | {} | {:.1} % of {} |",
        way.name(),
        figures.redeems,
        figures.peak(1),
        figures.peak(5),
        figures.fresh_share() * 100.0,
        figures.visits,
    )
}

fn argument(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preloading_flattens_the_morning_and_lets_the_nights_be() {
        let [on_demand, always, preload] = Way::ALL.map(|way| run::month(way, 400, 7));
        assert!(preload.fresh_share() > 0.9, "{:.3}", preload.fresh_share());
        assert!(on_demand.fresh_share() < 0.5, "{:.3}", on_demand.fresh_share());
        assert!(
            preload.redeems * 10 < always.redeems * 6,
            "{} of {}",
            preload.redeems,
            always.redeems
        );
        assert!(
            preload.peak(5) < on_demand.peak(5),
            "{} of {}",
            preload.peak(5),
            on_demand.peak(5)
        );
    }

    #[test]
    fn a_seed_gives_the_same_month() {
        let [one, two] = [3, 3].map(|seed| run::month(Way::Preload, 20, seed));
        assert_eq!(
            (one.redeems, one.visits, one.peak(5)),
            (two.redeems, two.visits, two.peak(5))
        );
    }
}
