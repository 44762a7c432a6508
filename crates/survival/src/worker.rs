//! A world's process: works off jobs from standard input, and says what it finds on standard output.

use std::io::{BufRead as _, Write as _};
use std::path::Path;

use crate::job::{Event, Failure, Job};
use crate::world::World;
use crate::{churn, damage, storm, sweep};

/// Works until standard input ends, or something is wrong with this world.
pub(crate) fn work(bin: &Path, network: &str) {
    let world = World::new(bin, network);
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line of a job");
        let job: Job = serde_json::from_str(&line).expect("a job");
        let mut clean = true;
        let mut hear = |event: Event| {
            clean &= !matches!(event, Event::Tried { failure: Some(_), .. });
            say(&event);
        };
        let outcome = attempt(&world, &job, &mut hear);
        if let Err(failure) = outcome {
            hear(Event::Tried {
                point: job.part(),
                points: 0,
                missed: false,
                message: None,
                failure: Some(failure),
            });
        }
        say(&Event::Done);
        if !clean {
            return;
        }
    }
}

fn attempt(world: &World, job: &Job, say: &mut impl FnMut(Event)) -> Result<(), Failure> {
    match job {
        Job::Calls(sweep) => {
            say(Event::Calls(sweep::list(world, sweep)?));
            Ok(())
        }
        Job::Sweep(sweep, points) => sweep::points(world, sweep, points, say),
        Job::Storm(name, _, size) => {
            let points = storm::run(world, name, *size)?;
            say(Event::Tried { point: name.clone(), points, missed: false, message: None, failure: None });
            Ok(())
        }
        Job::Churn(cycles) => churn::run(world, *cycles, say),
        Job::Damage(case, _) => damage::run(world, case, say),
    }
}

#[expect(clippy::print_stdout, reason = "the coordinator reads it")]
fn say(event: &Event) {
    println!("{}", serde_json::to_string(event).expect("an event has a JSON form"));
    let _ = std::io::stdout().flush();
}
