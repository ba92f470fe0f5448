//! Known expensive inputs: a search begins here.

/// Each with the reason for its cost.
pub(crate) const SEEDS: [&str; 31] = [
    // Subscriptions of many masks of which each meets every node of a change and finds nothing.
    "rights=configs subs=40 subs.masks=100 subs.root=desiredState.configs.b0 subs.levels=2 \
     subs.stars=255 subs.end=absent subs.own=own wait=50 a.kind=update a.masks=1 \
     a.root=desiredState.configs a.depth=3 a.fan=350 a.tip=1 a.size=3000000 a.toggle=values rounds=2",
    "rights=configs subs=20 subs.masks=256 subs.root=desiredState.configs.b0 subs.levels=2 \
     subs.stars=255 subs.end=absent subs.own=own wait=50 a.kind=update a.masks=1 \
     a.root=desiredState.configs a.depth=3 a.fan=90 a.tip=1 a.size=199000 a.toggle=values rounds=4",
    // Two million empty messages in one, by a sender that may write nothing.
    "rights=blind rounds=4 window=4 a.kind=repeat a.what=files a.size=4190000",
    "rights=blind a.kind=repeat a.what=files a.size=4190000",
    "rights=blind rounds=4 window=4 a.kind=repeat a.what=workloads a.size=4190000",
    "rights=blind rounds=4 window=4 a.kind=repeat a.what=agents a.size=4190000",
    "rights=blind rounds=4 window=4 a.kind=repeat a.what=agent_states a.size=4190000",
    "rights=blind a.kind=repeat a.what=workload_states a.size=4190000",
    "rights=blind a.kind=repeat a.what=id_states a.size=4190000",
    // The same key again and again, and each time another.
    "rights=blind a.kind=repeat a.what=configs a.size=4190000 a.unit=2",
    "rights=configs a.kind=repeat a.what=fields a.size=4190000 a.unit=6 a.own=own",
    // An array of items without content, and of empty arrays.
    "rights=blind a.kind=repeat a.what=items a.size=4190000",
    "rights=configs a.kind=repeat a.what=items a.size=4190000 a.inner=2 a.unit=1",
    "rights=read a.kind=repeat a.what=logs a.size=4190000",
    "rights=read a.kind=repeat a.what=update_masks a.size=4190000",
    // One allowed update of tiny leaves, alone and before the eyes of two subscribers.
    "rights=configs a.kind=update a.masks=1 a.root=desiredState.configs a.keys=300 a.depth=1 \
     a.fan=1000 a.size=3000000 a.toggle=values rounds=2",
    "rights=configs subs=2 subs.masks=1 subs.root=desiredState.configs subs.levels=1 subs.stars=1 \
     wait=50 a.kind=update a.masks=1 a.root=desiredState.configs a.keys=300 a.depth=1 a.fan=1000 \
     a.size=3000000 a.toggle=values rounds=2",
    "rights=configs subs=200 subs.masks=1 subs.root=desiredState.configs subs.levels=1 subs.stars=1 \
     subs.end=there subs.own=own wait=50 a.kind=update a.masks=1 a.root=desiredState.configs \
     a.keys=400000 a.size=3000000 a.toggle=names rounds=8",
    // The same with as many values as a message may have: tiny ones, and such that fill the frame.
    "rights=configs subs=40 subs.masks=100 subs.root=desiredState.configs.b0 subs.levels=2 \
     subs.stars=255 subs.end=absent subs.own=own wait=50 a.kind=update a.masks=1 \
     a.root=desiredState.configs a.depth=3 a.fan=140 a.tip=1 a.size=400000 a.toggle=values rounds=4",
    "rights=configs subs=2 subs.masks=1 subs.root=desiredState.configs subs.levels=1 subs.stars=1 \
     wait=50 a.kind=update a.masks=1 a.root=desiredState.configs a.keys=30 a.depth=1 a.fan=1000 \
     a.size=400000 a.toggle=values rounds=4",
    "rights=configs subs=8 subs.masks=2 subs.root=desiredState.configs subs.levels=2 subs.stars=3 \
     subs.own=own subs.end=there wait=50 a.kind=update a.masks=1 a.root=desiredState.configs \
     a.keys=30000 a.leaf=100 a.size=4100000 a.toggle=names rounds=4",
    "rights=blind rounds=4 window=4 a.kind=repeat a.what=files a.size=4190000 a.unit=60",
    "rights=configs a.kind=repeat a.what=fields a.size=4190000 a.unit=60 a.own=own",
    // Reads of overlapping masks.
    "rights=read state.keys=300 state.depth=1 state.fan=1000 state.size=3000000 rounds=4 \
     a.kind=read a.masks=256 a.root=* a.levels=4 a.stars=255 a.end=absent",
    "rights=read state.keys=300 state.depth=3 state.fan=10 state.size=3000000 rounds=4 \
     a.kind=read a.masks=256 a.root=desiredState a.levels=4 a.stars=127 a.turn=yes",
    "rights=read state.part=workloads state.form=tags state.keys=2000 state.fan=10 \
     state.size=1000000 rounds=4 window=4 a.kind=read",
    // Everything there is, by a mask and by none: as large as the search allows the state to be.
    "rights=read state.keys=400000 state.depth=1 state.fan=1000 state.size=60000000 rounds=4 \
     a.kind=read a.masks=1 a.root=desiredState.configs a.levels=2 a.stars=255",
    "rights=read state.keys=400000 state.depth=1 state.fan=1000 state.size=60000000 rounds=4 \
     a.kind=read",
    // Subscriptions that are made and cancelled without end, beside a large state.
    "rights=read state.keys=1000 state.size=1000000 rounds=100 window=64 subs=64 subs.masks=100 \
     subs.root=desiredState.configs subs.levels=1 subs.spread=256 a.kind=cancel a.count=64 \
     b.kind=subscribe b.count=64 b.masks=100 b.root=desiredState.configs b.levels=1 b.spread=256",
    // Workloads of many entries, of which each depends on all that follow.
    "rights=workloads a.kind=update a.part=workloads a.form=dependencies a.masks=256 \
     a.root=desiredState.workloads a.levels=1 a.spread=256 a.keys=256 a.fan=256 a.size=1000000 \
     a.toggle=gone rounds=4",
    "rights=blind rounds=1000 window=64 a.kind=hello a.size=100000",
];
