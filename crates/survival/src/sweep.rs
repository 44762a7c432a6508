//! Kills and errors at the points of one verb of one plugin.

use testkit::Snapshot;

use crate::call::Ended;
use crate::calls;
use crate::job::{Event, Failure, Point, Sweep, Verb};
use crate::look::Look;
use crate::message;
use crate::trace::{self, Action, Call, Injection, Traced};
use crate::world::{Guest, World};

/// A world that is prepared for the points of one sweep.
struct Stage<'w> {
    world: &'w World,
    sweep: &'w Sweep,
    plugin: usize,
    victim: Guest,
    company: Option<Guest>,
    /// Before the plugin's ADD, and to be so again after its DEL.
    before: Look,
    /// The same in words, of the host alone.
    worded: Snapshot,
}

/// What came of a point.
struct Tried {
    hit: Option<Call>,
    message: Option<String>,
    outcome: Result<(), Failure>,
}

/// The system calls of the verb.
pub(crate) fn list(world: &World, sweep: &Sweep) -> Result<Vec<Call>, Failure> {
    let mut stage = Stage::set(world, sweep)?;
    let traced = stage.run(None);
    if !traced.ended.succeeded() {
        return Err(Failure::new(format!("{} {}: {}", sweep.plugin, sweep.verb, traced.ended.describe())));
    }
    stage.repair()?;
    stage.clear()?;
    Ok(traced.calls)
}

/// Tries the points, until one fails: then the world is not to be trusted any more.
pub(crate) fn points(
    world: &World,
    sweep: &Sweep,
    points: &[Point],
    say: &mut impl FnMut(Event),
) -> Result<(), Failure> {
    let whole = Snapshot::take();
    let mut stage = Stage::set(world, sweep)?;
    for point in points {
        let spelt = sweep.spell(point);
        say(Event::Trying(spelt.clone()));
        let Tried { hit, message, outcome } = match point.error.as_deref() {
            None => stage.kill(point),
            Some(error) => stage.fail(point, error),
        };
        let failed = outcome.is_err();
        let failure = outcome.err().map(|mut failure| {
            failure.call = hit
                .as_ref()
                .map(|call| format!("{} {} {}", call.program, call.name, call.on))
                .unwrap_or_default();
            failure
        });
        say(Event::Tried { point: spelt, points: 1, missed: hit.is_none(), message, failure });
        if failed {
            return Ok(());
        }
    }
    stage.clear()?;
    whole_life(world)?;
    let difference =
        whole.without_lease_bookkeeping().difference(&Snapshot::take().without_lease_bookkeeping());
    if difference.is_empty() {
        return Ok(());
    }
    Err(Failure::differing("at the end, the host is not as at the beginning", lines(&difference)))
}

/// The containers that count. GC is for those that are gone: it is not told their namespaces.
fn seen<'g>(sweep: &Sweep, company: Option<&'g Guest>, victim: &'g Guest) -> Vec<&'g Guest> {
    let there = sweep.verb != Verb::Gc && sweep.repair != Verb::Gc;
    company.into_iter().chain(there.then_some(victim)).collect()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// A whole life on the world: what was tried on it left it as good as new.
fn whole_life(world: &World) -> Result<(), Failure> {
    let mut guest = world.guest(7);
    let all = 0..world.plugins().len();
    world.add(&mut guest, all.clone())?;
    world.check(&guest)?;
    world.del(&mut guest, all)
}

impl<'w> Stage<'w> {
    /// Up to the moment before the verb.
    fn set(world: &'w World, sweep: &'w Sweep) -> Result<Self, Failure> {
        let plugin = world.index(&sweep.plugin);
        let mut company = sweep.company.then(|| world.guest(1));
        if let Some(guest) = &mut company {
            world.add(guest, 0..world.plugins().len())?;
        }
        let mut victim = world.guest(2);
        world.add(&mut victim, 0..plugin)?;
        let (before, worded) = (World::look(&seen(sweep, company.as_ref(), &victim)), Snapshot::take());
        let mut stage = Self { world, sweep, plugin, victim, company, before, worded };
        stage.prepare()?;
        Ok(stage)
    }

    /// What DEL and GC need to have something to do.
    fn prepare(&mut self) -> Result<(), Failure> {
        if self.sweep.verb == Verb::Add {
            return Ok(());
        }
        self.world.add_one(self.plugin, &mut self.victim)
    }

    /// Takes everything away again.
    fn clear(mut self) -> Result<(), Failure> {
        let all = self.world.plugins().len();
        let attached = if self.sweep.verb == Verb::Add { self.plugin } else { self.plugin + 1 };
        self.world.del(&mut self.victim, 0..attached)?;
        match &mut self.company {
            Some(company) => self.world.del(company, 0..all),
            None => Ok(()),
        }
    }

    fn run(&self, injection: Option<Injection<'_>>) -> Traced {
        let valid: Vec<&Guest> = self.company.iter().collect();
        let execution = match self.sweep.verb {
            Verb::Gc => self.world.collection(self.plugin, &valid),
            verb => self.world.execution(self.plugin, verb, &self.victim),
        };
        trace::run(&execution, injection)
    }

    /// What a runtime does after a verb that did not end well.
    fn repair(&mut self) -> Result<(), Failure> {
        self.put_right()?;
        if self.sweep.verb == Verb::Add { Ok(()) } else { self.prepare() }
    }

    /// Whether everything is as it was before the plugin's ADD.
    fn same(&self, when: &str) -> Result<(), Failure> {
        let now = World::look(&seen(self.sweep, self.company.as_ref(), &self.victim));
        let difference = self.before.difference(&now);
        if difference.is_empty() {
            return Ok(());
        }
        let worded = lines(
            &self
                .worded
                .without_lease_bookkeeping()
                .difference(&Snapshot::take().without_lease_bookkeeping()),
        );
        let difference = if worded.is_empty() { difference } else { [worded, difference].concat() };
        Err(Failure::differing(&format!("{when}, the host is not as before"), difference))
    }

    fn kill(&mut self, point: &Point) -> Tried {
        let injection =
            Injection { program: &point.program, name: &point.call, nth: point.nth, action: Action::Kill };
        let traced = self.run(Some(injection));
        let outcome = self.after_kill(&traced.ended);
        Tried { hit: traced.hit, message: traced.ended.message(), outcome }
    }

    fn after_kill(&mut self, ended: &Ended) -> Result<(), Failure> {
        let (plugin, repair) = (self.plugin, self.sweep.repair);
        if ended.hung {
            return Err(Failure::new("what was left of it hung"));
        }
        if self.sweep.verb == Verb::Add && !ended.succeeded() && ended.code.is_some() {
            // Its delegate was killed, and it had the time to clean up.
            self.same("after the ADD that failed by itself")?;
        }
        self.put_right()?;
        self.same(&format!("after {repair}"))?;
        if let Some(company) = &self.company {
            self.world.check_one(plugin, company)?;
        }
        self.world.add_one(plugin, &mut self.victim)?;
        self.world.check_one(plugin, &self.victim)?;
        if self.sweep.verb == Verb::Add {
            self.world.del_one(plugin, &mut self.victim)?;
            self.same("after ADD, CHECK and DEL")?;
        }
        Ok(())
    }

    /// DEL or GC alone.
    fn put_right(&mut self) -> Result<(), Failure> {
        if self.sweep.repair == Verb::Gc {
            let valid: Vec<&Guest> = self.company.iter().collect();
            return self.world.gc_one(self.plugin, &valid);
        }
        let known = self.victim.results();
        if self.sweep.verb == Verb::Add {
            // A runtime whose ADD failed has no result to give.
            self.victim.forget();
        }
        let outcome = self.world.del_one(self.plugin, &mut self.victim);
        self.victim.remember(known.into_iter().take(self.plugin).collect());
        outcome
    }

    fn fail(&mut self, point: &Point, error: &str) -> Tried {
        let Some(number) = calls::error_named(error) else {
            let outcome = Err(Failure::new(format!("there is no error {error}")));
            return Tried { hit: None, message: None, outcome };
        };
        let injection = Injection {
            program: &point.program,
            name: &point.call,
            nth: point.nth,
            action: Action::Fail(number),
        };
        let traced = self.run(Some(injection));
        let message = traced.ended.message().filter(|_| !traced.ended.succeeded());
        let survives = calls::survives(&point.call, number);
        // What was a file when the calls were listed, and is the pipe to the runtime this time: no error that a pipe has.
        let to_pipe = |call: &Call| call.name == "write" && call.on.starts_with("pipe:");
        let outcome = if !survives && traced.hit.as_ref().is_some_and(to_pipe) {
            self.put_right()
                .and_then(|()| self.same("after an answer that was not taken"))
                .and_then(|()| self.prepare())
        } else {
            self.after_error(&traced, survives)
        };
        Tried { hit: traced.hit, message, outcome }
    }

    /// Whether only the inside of the container differs, and the plugin said that it works without its namespace. A DEL that failed for
    /// that would stop the DEL of the plugins before it.
    fn inside(&self, ended: &Ended, failure: &Failure) -> bool {
        let victim = format!(" {}: ", self.victim.id);
        let netns = self.victim.container.path().display().to_string();
        ended.stderr.contains(&netns) && failure.difference.iter().all(|line| line[1..].starts_with(&victim))
    }

    /// Goes on with another container: what is in this one goes with it.
    fn renew(&mut self) -> Result<(), Failure> {
        self.world.del(&mut self.victim, 0..self.plugin)?;
        // The name is free once the container is gone.
        let name = self.victim.name_only();
        drop(std::mem::replace(&mut self.victim, name));
        self.victim = self.world.guest(2);
        self.world.add(&mut self.victim, 0..self.plugin)?;
        self.before = World::look(&seen(self.sweep, self.company.as_ref(), &self.victim));
        self.worded = Snapshot::take();
        self.prepare()
    }

    fn after_error(&mut self, traced: &Traced, survives: bool) -> Result<(), Failure> {
        let ended = &traced.ended;
        let (plugin, verb) = (self.plugin, self.sweep.verb);
        if ended.hung {
            return Err(Failure::new("it hung"));
        }
        if !ended.succeeded() {
            if survives {
                return Err(Failure::new(format!("it did not survive: {}", ended.describe())));
            }
            message::judge(ended)?;
        }
        match (verb, ended.succeeded()) {
            (Verb::Add, false) => return self.same("after the ADD that failed by itself"),
            (Verb::Add, true) => {
                self.world.keep(plugin, &mut self.victim, ended)?;
                self.world.check_one(plugin, &self.victim)?;
                self.world.del_one(plugin, &mut self.victim)?;
                return self.same("after an ADD that succeeded in spite of the error, and DEL");
            }
            (_, true) => {
                let outcome = self.same(&format!("after {verb}, which said that it had succeeded"));
                // A directory of state that can't be removed though it is empty is left to the next GC.
                let emptied = |failure: &Failure| {
                    traced.hit.as_ref().is_some_and(|call| call.name == "rmdir")
                        && failure.difference.iter().all(|line| line.starts_with("+ directory /run/ferrule"))
                };
                match outcome {
                    Err(failure) if self.inside(ended, &failure) => return self.renew(),
                    Err(failure) if emptied(&failure) => {
                        let valid: Vec<&Guest> = self.company.iter().collect();
                        self.world.gc_one(self.plugin, &valid)?;
                        self.same("after GC")?;
                    }
                    other => other?,
                }
            }
            (_, false) => {
                self.put_right()?;
                self.same(&format!("after the {} that followed", self.sweep.repair))?;
            }
        }
        self.prepare()
    }
}
