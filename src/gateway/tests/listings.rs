use super::*;
use crate::volume::types::Room;
use crate::wire::nfs3::*;
use crate::wire::xdr::Writer;
use nfsserve::nfs::nfsstat3;

fn encoded_len<T: Wire>(value: &T) -> usize {
    let mut w = Writer::default();
    w.put(value);
    w.written()
}

async fn fill(world: &World) -> Vec<Vec<u8>> {
    for i in 0..40usize {
        let name = format!("{i:02}{}", "n".repeat(i * 6));
        world.double.file(name.as_bytes(), vec![]);
    }
    [b".".to_vec(), b"..".to_vec()].into_iter().chain(world.double.names()).collect()
}

#[tokio::test]
async fn a_listing_in_pieces_of_any_size_is_complete_and_never_a_byte_too_long() {
    let world = world().await;
    let all = fill(&world).await;
    let mut client = world.client().await;
    for count in (104 + 280..1500).step_by(61).chain([4096, 65536, u32::MAX]) {
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let verifier = u64::from(count); // any verifier is taken
            let args = ReaddirArgs { dir: world.root(), cookie, verifier, count };
            let page: ReaddirRes = client.nfs(&Args::Readdir(args)).await;
            let page = page.unwrap();
            assert!(encoded_len(&page) <= count as usize);
            cookie = page.entries.last().map_or(cookie, |e| e.cookie);
            names.extend(page.entries.into_iter().map(|e| e.name.0.to_vec()));
            if page.eof {
                break;
            }
        }
        assert_eq!(names, all, "count {count}");
    }
}

#[tokio::test]
async fn a_plus_listing_keeps_both_of_its_bounds() {
    let world = world().await;
    let all = fill(&world).await;
    let mut client = world.client().await;
    for (dircount, maxcount) in [(300, 700), (65536, 600), (300, 65536), (1000, 5000), (u32::MAX, u32::MAX)] {
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let args = ReaddirPlusArgs { dir: world.root(), cookie, verifier: 0, dircount, maxcount };
            let page: ReaddirPlusRes = client.nfs(&Args::ReaddirPlus(args)).await;
            let page = page.unwrap();
            assert!(encoded_len(&page) <= maxcount as usize);
            let of_names: usize = page.entries.iter().map(|e| entry_len(e.name.0.len())).sum();
            assert!(of_names <= dircount as usize);
            cookie = page.entries.last().map_or(cookie, |e| e.cookie);
            for entry in page.entries {
                assert!(entry.handle.is_some());
                names.push(entry.name.0.to_vec());
            }
            if page.eof {
                break;
            }
        }
        assert_eq!(names, all, "{dircount} {maxcount}");
    }
}

#[tokio::test]
async fn room_for_not_even_one_entry_is_too_small_to_the_byte() {
    let world = world().await;
    let mut client = world.client().await;
    // Attributes 88, verifier 8, end 4, eof 4, then the entry ".": 28, and what READDIRPLUS adds: 88 + 44.
    for (count, ok) in [(0, false), (16, false), (127, false), (131, false), (132, true)] {
        let args = ReaddirArgs { dir: world.root(), cookie: 0, verifier: 0, count };
        let page: ReaddirRes = client.nfs(&Args::Readdir(args)).await;
        match page {
            Ok(page) => assert!(ok && page.entries.len() == 1 && !page.eof, "{count}"),
            Err((status, _)) => assert!(!ok && matches!(status, nfsstat3::NFS3ERR_TOOSMALL), "{count}"),
        }
    }
    // What names may take is a hint, and never too small.
    for (dircount, maxcount, ok) in
        [(28, 264, true), (0, 264, true), (28, 263, false), (0, 0, false), (127, 127, false), (0, 9999, true)]
    {
        let args = ReaddirPlusArgs { dir: world.root(), cookie: 0, verifier: 0, dircount, maxcount };
        let page: ReaddirPlusRes = client.nfs(&Args::ReaddirPlus(args)).await;
        assert_eq!(page.is_ok(), ok, "{dircount} {maxcount}: {page:?}");
    }
}

#[tokio::test]
async fn the_volume_is_asked_for_what_both_bounds_have_room_for() {
    let world = world().await;
    let mut client = world.client().await;
    let asked = || world.double.last_room.lock().unwrap();
    // What a listing takes without entries: 104; what READDIRPLUS adds to each entry: 132.
    for (dircount, maxcount, room) in
        [(512, 65536, Room::plus(65432, 512, 132)), (u32::MAX, 500, Room::plus(396, 1 << 20, 132))]
    {
        let args = ReaddirPlusArgs { dir: world.root(), cookie: 0, verifier: 0, dircount, maxcount };
        let _: ReaddirPlusRes = client.nfs(&Args::ReaddirPlus(args)).await;
        assert_eq!(asked(), room);
    }
    let args = ReaddirArgs { dir: world.root(), cookie: 0, verifier: 0, count: 4096 };
    let _: ReaddirRes = client.nfs(&Args::Readdir(args)).await;
    assert_eq!(asked(), Room::plain(3992));
}

#[tokio::test]
async fn past_the_end_there_is_nothing_and_it_is_the_end() {
    let world = world().await;
    let mut client = world.client().await;
    for cookie in [2, 3, u64::MAX] {
        let args = ReaddirArgs { dir: world.root(), cookie, verifier: 0, count: 104 };
        let page: ReaddirRes = client.nfs(&Args::Readdir(args)).await;
        let page = page.unwrap();
        assert!(page.entries.is_empty() && page.eof);
    }
}
