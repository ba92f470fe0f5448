//! What happens in a world, by chance: who says what, who reads, how time passes.

use fifogate::broker::{AckMode, Input, PeerId, Tick};
use rand::{
    Rng,
    seq::{IndexedRandom, IteratorRandom},
};

use super::{
    asks::{self, Saying},
    peer::Habit,
    server::Seen,
    tree, words,
    world::World,
};

impl World {
    pub(crate) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step += 1;
            self.counts.one("steps");
            self.now += *[0, 0, 1, 3, 30].choose(&mut self.rng).unwrap();
            self.act();
            self.pump_agent();
            self.pump();
        }
        self.calm();
    }

    fn act(&mut self) {
        match self.rng.random_range(0..1_000) {
            0..20 => self.pass_time(),
            20..220 => self.read_slowly(),
            220..260 => self.open_or_close(),
            260..270 => self.change_habit(),
            270..273 => self.calm(),
            273 => self.restart(),
            274..280 => self.echo(),
            280..290 => self.with_some_peer(Self::end_of_file),
            290..292 => self.with_some_peer(Self::break_stream),
            292..400 if self.is_linked() => self.agent_acts(),
            _ => self.some_peer_speaks(),
        }
    }

    fn with_some_peer(&mut self, act: impl Fn(&mut Self, PeerId)) {
        let peers = self.peers.values().filter(|peer| peer.has_pair).map(|peer| peer.id);
        if let Some(id) = peers.choose(&mut self.rng) {
            act(self, id);
        }
    }

    fn some_peer_speaks(&mut self) {
        // One that is not read is heard only if its message was on its way already.
        let late = self.chance(0.03);
        let read = self.peers.values().filter(|peer| peer.has_pair && (peer.reading || late));
        let Some(id) = read.map(|peer| peer.id).choose(&mut self.rng) else {
            self.open_or_close();
            if self.peers.is_empty() && self.opening.is_empty() {
                self.populate();
            }
            return;
        };
        let peer = &self.peers[&id];
        let shy = !peer.is_open() && self.rng.random_bool(0.8);
        let saying = match shy {
            true => Saying::Hello("1.0.0"),
            false => asks::saying(&mut self.rng, &self.state, peer.access.as_ref()),
        };
        self.say(id, &saying);
    }

    /// A world without workloads is dull.
    fn populate(&mut self) {
        match self.is_linked() {
            true => {
                let instance = self.some_instance();
                self.add_workload(instance);
            }
            false => {
                let desired = words::start(&mut self.rng);
                self.note(format!("starts anew with {desired}"));
                self.start(desired);
            }
        }
    }

    fn restart(&mut self) {
        self.note("restarts".to_owned());
        self.counts.one("restarts");
        self.start(self.state["desiredState"].clone());
    }

    fn pass_time(&mut self) {
        match self.broker.next_deadline() {
            Some(Tick(due)) if self.rng.random_bool(0.8) => self.now = self.now.max(due),
            _ => self.now += self.rng.random_range(0..300),
        }
        self.note(format!("it is {}", self.now));
        self.handle(Input::Tick);
    }

    /// Pairs come, or cannot be made, or go.
    fn open_or_close(&mut self) {
        if let Some(id) = self.closing.pop() {
            self.note(format!("the pair of {id:?} is gone"));
            if let Some(agent) = &mut self.agent {
                agent.pair_closed(id);
            }
            self.handle(Input::PairClosed(id));
        }
        let Some(at) = (0..self.opening.len()).choose(&mut self.rng) else { return };
        let id = self.opening.swap_remove(at);
        if self.chance(0.05) {
            self.note(format!("the pair of {id:?} cannot be made"));
            self.counts.one("pairs failed");
            self.peers.remove(&id);
            self.gone.push(id);
            self.forget_forwards(id);
            if let Some(agent) = &mut self.agent {
                agent.pair_failed(id);
            }
            return self.handle(Input::PairFailed(id, "no space".to_owned()));
        }
        self.note(format!("the pair of {id:?} is there"));
        self.counts.one("pairs opened");
        let peer = self.peers.get_mut(&id);
        let instance = peer.map(|peer| {
            peer.has_pair = true;
            peer.instance.clone()
        });
        if let Some(agent) = &mut self.agent {
            agent.pair_opened(id, instance.as_ref(), "/dir");
        }
        self.handle(Input::PairOpened(id, "/dir".to_owned()));
    }

    fn change_habit(&mut self) {
        let habit = self.habit();
        if let Some(peer) = self.peers.values_mut().choose(&mut self.rng) {
            peer.habit = habit;
        }
    }

    /// Something that was on its way from a peer that is gone; or news of long ago.
    fn echo(&mut self) {
        if let Some(id) = self.gone.choose(&mut self.rng).copied() {
            self.note(format!("{id:?} is heard from the grave"));
            match self.rng.random_range(0..3) {
                0 => self.handle(Input::EndOfFile(id)),
                1 => self.handle(Input::Taken(id, 7)),
                _ => self.say(id, &Saying::Hello("1.0.0")),
            }
        }
        let old =
            self.peers.values().map(|peer| (peer.id, peer.server.written)).choose(&mut self.rng);
        if let Some((id, written)) = old {
            let seq = self.rng.random_range(0..=written);
            self.handle_written(id, seq);
        }
    }

    fn handle_written(&mut self, id: PeerId, seq: u64) {
        self.peers.get_mut(&id).unwrap().has_written(seq);
        self.handle(Input::Written(id, seq));
    }

    /// A slow reader's pipe moves on by a little.
    fn read_slowly(&mut self) {
        let slow = |habit| habit == Habit::Slow;
        let ids = self.peers.values().filter(|peer| slow(peer.habit)).map(|peer| peer.id);
        if let Some(id) = ids.choose(&mut self.rng) {
            for _ in 0..self.rng.random_range(1..3) {
                self.write(id);
            }
            self.take(id);
        }
    }

    /// Prompt readers take all there is.
    fn pump(&mut self) {
        let prompt = |habit| habit == Habit::Prompt;
        loop {
            let peers = self.peers.values();
            let busy = peers.filter(|peer| prompt(peer.habit) && !peer.server.is_idle());
            let Some(id) = busy.map(|peer| peer.id).next() else { break };
            self.write(id);
            self.take(id);
        }
        self.pump_agent();
    }

    fn write(&mut self, id: PeerId) {
        let window = self.config.window;
        let peer = self.peers.get_mut(&id);
        if let Some(Some(seq)) = peer.and_then(|peer| peer.server.write(window)) {
            self.handle_written(id, seq);
        }
    }

    fn take(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(frame) = peer.server.take() else { return };
        if frame.session == peer.session {
            match frame.seen {
                Seen::Other => {}
                Seen::First(uid, view) => {
                    peer.views.insert(uid, view);
                }
                Seen::Event(uid, event) => {
                    let view = peer.views.get_mut(&uid).expect("the first answer comes first");
                    tree::follow(view, &event);
                }
            }
        }
        if frame.ack == AckMode::Taken {
            let seq = frame.seq;
            peer.has_written(seq);
            let live_at = self.now + self.config.subscribe_grace_ms;
            for own in peer.subscriptions.values_mut() {
                let first = own.live_at.is_none() && own.first_seq.is_some_and(|own| own <= seq);
                own.live_at = own.live_at.or(first.then_some(live_at));
            }
            self.handle(Input::Taken(id, seq));
        }
    }

    /// Everybody reads, and time passes, until nothing happens any more. Then all views are compared.
    pub(crate) fn calm(&mut self) {
        self.note("calm".to_owned());
        let habits: Vec<_> = self.peers.values().map(|peer| (peer.id, peer.habit)).collect();
        while !self.opening.is_empty() || !self.closing.is_empty() {
            self.open_or_close();
            self.pump_agent();
        }
        for peer in self.peers.values_mut() {
            peer.habit = Habit::Prompt;
        }
        self.pump();
        while let Some(Tick(due)) = self.broker.next_deadline() {
            self.now = self.now.max(due);
            self.handle(Input::Tick);
            self.pump();
        }
        self.compare_views();
        assert!(self.agent_owes_nothing(), "the agent is owed something: {:?}", self.agent);
        for (id, habit) in habits {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.habit = habit;
            }
        }
    }
}
