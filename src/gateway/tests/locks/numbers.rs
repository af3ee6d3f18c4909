//! The numbers that hosts tell, and what is believed of them by which way.

use super::*;

/// Locks one byte, which touches no other one, under this number.
async fn locks(world: &World, fh: &Fh, state: u32, offset: u64) {
    let args = LockArgs { state, ..args(lock(fh, "a", 1, offset * 2, 1)) };
    assert_eq!(from::<Res>(world, LOCAL, p::LOCK, &args).await.stat, Stat::Granted, "{state} {offset}");
}

/// A world that has begun to serve: it knew of no hosts then, or there would be a grace.
async fn begun() -> (World, Fh) {
    let world = lock_world(1).await;
    world.serves().await;
    let fh = world.fh(world.double.file(b"file", vec![]));
    (world, fh)
}

fn held(world: &World) -> usize {
    crate::gateway::LockView(world.shared.clone()).figures().held
}

#[tokio::test]
async fn a_forged_datagram_makes_no_later_true_one_unheard() {
    let (world, fh) = begun().await;
    // The greatest number of all, and the very one that the host will have.
    for (life, forged) in [(7, u32::MAX), (9, 11), (11, u32::MAX)] {
        locks(&world, &fh, life, 0).await;
        notify(&world, "a", forged).await;
        assert_eq!(held(&world), 0, "it cannot be told from a true one");
        locks(&world, &fh, life, 1).await;
        notify(&world, "a", life + 2).await;
        assert_eq!(held(&world), 0, "{life} {forged}");
    }
}

#[tokio::test]
async fn a_forged_datagram_makes_nothing_unheard_that_comes_by_tcp() {
    let (world, fh) = begun().await;
    for forged in [u32::MAX, 9, 11] {
        let name = format!("host{forged}");
        let ask = |state, offset: u64| LockArgs { state, ..args(lock(&fh, &name, 1, offset * 2, 1)) };
        let granted = async |ask: LockArgs| {
            assert_eq!(from::<Res>(&world, LOCAL, p::LOCK, &ask).await.stat, Stat::Granted);
        };
        granted(ask(7, 0)).await;
        notify(&world, &name, forged).await;
        granted(ask(7, 1)).await;
        granted(ask(9, 2)).await;
        assert_eq!(held(&world), 1, "what it held under 7 is free: {forged}");
        notify(&world, &name, forged).await;
        granted(ask(9, 3)).await;
        let ends = Ends { peer: LOCAL.parse().unwrap(), local: Some(world.addr) };
        let (): () = between(&world, ends, p::FREE_ALL, &nlm4::Notify { name: short(&name), state: 11 }).await;
        assert_eq!(held(&world), 0, "{forged}");
    }
}

/// Also where the next life's first lock gives no number, and its first that does says the same again.
#[tokio::test]
async fn what_a_datagram_told_is_not_told_again_by_a_copy_of_it_nor_by_the_next_lifes_calls() {
    let (world, fh) = begun().await;
    locks(&world, &fh, 7, 0).await;
    notify(&world, "a", 9).await;
    for (state, offset) in [(0, 0), (9, 1), (9, 2)] {
        locks(&world, &fh, state, offset).await;
        notify(&world, "a", 9).await;
        assert_eq!(held(&world), usize::try_from(offset).unwrap() + 1);
    }
    let ends = Ends { peer: LOCAL.parse().unwrap(), local: Some(world.addr) };
    let (): () = between(&world, ends, p::FREE_ALL, &nlm4::Notify { name: short("a"), state: 9 }).await;
    assert_eq!(held(&world), 3, "nor when it comes by another way");
}

/// As of a host that has told its number by a datagram alone.
#[tokio::test]
async fn a_call_with_a_greater_number_than_a_datagram_told_is_of_the_next_life() {
    let (world, fh) = begun().await;
    locks(&world, &fh, 0, 0).await;
    notify(&world, "a", 5).await;
    locks(&world, &fh, 0, 1).await;
    locks(&world, &fh, 7, 2).await;
    assert_eq!(held(&world), 1, "what life 5 held is free");
}
