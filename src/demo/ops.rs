//! What a lane does: each operation picks something, says what the answer must be, and compares.

use super::Error;
use super::lane::{Done, Lane};
use super::model::{Body, Change, New, Nid, ROOT, new_dir, new_file};
use super::nfs::{Call, How, Kind, Nanos, Reply, SetAttrs, SetTime, status};
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// Bytes of one WRITE.
const WRITE_MAX: u64 = 64 << 10;

impl Lane {
    /// One operation.
    pub async fn step(&mut self) -> Done {
        self.ops += 1;
        let full = self.tree.nodes.len() > self.limits.nodes;
        let dice = self.rng.below(100);
        if !self.may_change() {
            return match dice % 4 {
                0 => self.op_list().await,
                1 => self.op_look().await,
                _ => self.op_read().await,
            };
        }
        match dice {
            0..18 if full => self.op_remove().await,
            0..14 => self.op_create().await,
            14..17 => self.op_mkdir().await,
            17 => self.op_symlink().await,
            18 => self.op_mknod().await,
            19..35 => self.op_write().await,
            35..40 => self.op_append().await,
            40..44 => self.op_truncate().await,
            44..49 => self.op_rename_file().await,
            49..53 => self.op_rename_dir().await,
            53..56 => self.op_link().await,
            56..65 => self.op_remove().await,
            65..67 => self.op_rmdir().await,
            67..71 => self.op_setattr().await,
            71..81 => self.op_read().await,
            81..88 => self.op_list().await,
            88..95 => self.op_look().await,
            _ => self.op_refused().await,
        }
    }

    fn new_node(&self, body: Body, mode: u32) -> New {
        let root = self.tree.get(ROOT);
        New { body, mode, uid: root.uid, gid: root.gid }
    }

    /// A reply of CREATE, MKDIR, SYMLINK or MKNOD that succeeded.
    fn made(&mut self, reply: &Reply, dir: Nid, name: Bytes, new: New) -> Result<Nid, Error> {
        self.expect(reply, &[status::OK])?;
        let node = self.tree.take_nid();
        self.record(reply, Change::Make { dir, name, node, new: Box::new(new) }, Vec::new());
        self.learn_handle(node, reply.fh.clone())?;
        self.see(node, "new", reply.attr.as_ref())?;
        let mut times = self.see_dir(dir, &reply.wcc.after)?;
        times.extend(self.mtime(node));
        self.log_mtimes(times);
        Ok(node)
    }

    async fn op_create(&mut self) -> Done {
        let dir = self.pick_dir();
        let name = self.fresh_name(dir);
        let how = self.rng.below(3);
        self.doing = format!("CREATE ({how}) of {:?} in node {dir}", name.escape_ascii().to_string());
        let fh = self.handle(dir).await?;
        let (attrs, verf) = (SetAttrs::mode(0o640), self.rng.u64().to_be_bytes());
        let how = match how {
            0 => How::Unchecked(attrs),
            1 => How::Guarded(attrs),
            _ => How::Exclusive(verf),
        };
        let reply = self.mutate(&Call::Create { dir: fh.clone(), name: name.clone(), how }).await?;
        let exclusive = matches!(how, How::Exclusive(_));
        // An exclusive CREATE carries no attributes: the server chooses a mode, the client sets one afterwards.
        let mode = if exclusive { reply.attr.map_or(0, |a| a.mode) } else { 0o640 };
        let new = self.new_node(new_file(), mode);
        let node = self.made(&reply, dir, name.clone(), new)?;
        if exclusive {
            // The same verifier again finds the same file; another one does not.
            let again = self.mutate(&Call::Create { dir: fh.clone(), name: name.clone(), how }).await?;
            self.expect(&again, &[status::OK])?;
            self.learn_handle(node, again.fh)?;
            let other = How::Exclusive((u64::from_be_bytes(verf) ^ 1).to_be_bytes());
            let other = self.mutate(&Call::Create { dir: fh, name, how: other }).await?;
            self.expect(&other, &[status::EXIST])?;
            let set = SetAttrs { mode: Some(0o640), mtime: SetTime::Server, ..SetAttrs::default() };
            self.set_attr(node, set).await?;
        }
        let len = 1 + self.rng.below(3 * WRITE_MAX / 2);
        self.write(node, 0, len).await
    }

    async fn op_mkdir(&mut self) -> Done {
        let dir = self.pick_dir();
        let name = self.fresh_name(dir);
        self.doing = format!("MKDIR of {:?} in node {dir}", name.escape_ascii().to_string());
        let fh = self.handle(dir).await?;
        let reply = self.mutate(&Call::MkDir { dir: fh, name: name.clone(), attrs: SetAttrs::mode(0o750) }).await?;
        let new = self.new_node(new_dir(), 0o750);
        self.made(&reply, dir, name, new).map(|_| ())
    }

    async fn op_symlink(&mut self) -> Done {
        let dir = self.pick_dir();
        let name = self.fresh_name(dir);
        self.doing = format!("SYMLINK {:?} in node {dir}", name.escape_ascii().to_string());
        let len = 1 + self.rng.index(900);
        let target = Bytes::from(super::lane::odd_name(self.rng.u64(), len));
        let fh = self.handle(dir).await?;
        let attrs = SetAttrs::mode(0o777);
        let call = Call::Symlink { dir: fh, name: name.clone(), attrs, target: target.clone() };
        let reply = self.mutate(&call).await?;
        let mode = reply.attr.map_or(0o777, |a| a.mode);
        let new = self.new_node(Body::Symlink { target }, mode);
        self.made(&reply, dir, name, new).map(|_| ())
    }

    async fn op_mknod(&mut self) -> Done {
        let dir = self.pick_dir();
        let name = self.fresh_name(dir);
        self.doing = format!("MKNOD {:?} in node {dir}", name.escape_ascii().to_string());
        let kind = if self.rng.chance(50) { Kind::Fifo } else { Kind::Socket };
        let fh = self.handle(dir).await?;
        let attrs = SetAttrs::mode(0o600);
        let reply = self.mutate(&Call::MkNod { dir: fh, name: name.clone(), kind, attrs, dev: (0, 0) }).await?;
        let new = self.new_node(Body::Other(kind), 0o600);
        self.made(&reply, dir, name, new).map(|_| ())
    }

    async fn op_write(&mut self) -> Done {
        let Some(node) = self.pick_file() else { return Ok(()) };
        let size = self.size_of(node);
        let len = if self.rng.chance(10) { 8 * WRITE_MAX } else { 1 + self.rng.below(WRITE_MAX) };
        // Sometimes behind the end: a hole.
        let span = if self.rng.chance(5) && size < self.limits.file_bytes { size + (1 << 20) } else { size };
        let offset = self.rng.below(span.saturating_sub(len).max(1));
        self.write(node, offset, len).await
    }

    async fn op_append(&mut self) -> Done {
        let Some(node) = self.pick_file() else { return Ok(()) };
        let size = self.size_of(node);
        if size > self.limits.file_bytes {
            return Ok(());
        }
        let len = 1 + self.rng.below(WRITE_MAX);
        self.write(node, size, len).await
    }

    /// WRITEs side by side, as a kernel flushes; then a look at what came of them.
    async fn write(&mut self, node: Nid, offset: u64, len: u64) -> Done {
        self.doing = format!("WRITE of {len} bytes at {offset} to node {node}");
        let fh = self.handle(node).await?;
        let seed = self.rng.u64();
        let mut parts = JoinSet::new();
        let mut done = 0;
        while done < len {
            let part = (len - done).min(WRITE_MAX);
            let mut data = vec![0; usize::try_from(part).unwrap_or(0)];
            super::content::fill(seed, offset + done, &mut data);
            let stable = u32::try_from(self.rng.below(3)).unwrap_or(0);
            let call = Call::Write { node: fh.clone(), offset: offset + done, stable, data: Bytes::from(data) };
            let at = offset + done;
            let sender = self.sender();
            parts.spawn(async move { (at, part, sender.send(&call).await) });
            done += part;
        }
        let several = len > WRITE_MAX;
        let mut latest = Nanos::MIN;
        while let Some(joined) = parts.join_next().await {
            let (at, part, reply) = joined.map_err(|e| Error::Io(std::io::Error::other(e)))?;
            let reply = reply.map_err(|e| self.mismatch("an answer", e))?;
            self.expect(&reply, &[status::OK])?;
            if u64::from(reply.count) != part || reply.committed != 2 {
                let got = format!("{} bytes, committed {}", reply.count, reply.committed);
                return Err(self.mismatch(format_args!("{part} bytes FILE_SYNC"), got));
            }
            let times = reply.wcc.after.map(|a| (node, a.mtime));
            latest = latest.max(times.map_or(Nanos::MIN, |t| t.1));
            let len = u32::try_from(part).unwrap_or(0);
            self.record(&reply, Change::Write { node, offset: at, len, seed }, times.into_iter().collect());
            self.bytes_written += part;
            let stamps = self.tree.get_mut(node);
            stamps.mtime.raise(latest);
            stamps.ctime.loosen();
            if !several {
                self.see(node, "written", reply.wcc.after.as_ref())?;
            }
        }
        if several || self.rng.chance(20) {
            self.look(node).await?;
        }
        if self.rng.chance(10) {
            let reply = self.ask(&Call::Commit { node: fh, offset: 0, count: 0 }).await?;
            self.expect(&reply, &[status::OK])?;
            self.see(node, "committed", reply.wcc.after.as_ref())?;
        }
        Ok(())
    }

    async fn op_truncate(&mut self) -> Done {
        let Some(node) = self.pick_file() else { return Ok(()) };
        let size = self.size_of(node);
        let to = if self.rng.chance(25) && size < self.limits.file_bytes {
            size + self.rng.below(1 << 20)
        } else {
            self.rng.below(size + 1)
        };
        self.doing = format!("SETATTR of size {size} to {to} on node {node}");
        self.set_attr(node, SetAttrs::size(to)).await
    }

    async fn op_setattr(&mut self) -> Done {
        let Some(node) = self.pick(|t, n| n != ROOT && t.get(n).kind() != Kind::Symlink) else { return Ok(()) };
        let mode = 0o600 | u32::try_from(self.rng.below(0o200)).unwrap_or(0);
        let dir = self.tree.is_dir(node);
        let mut attrs = SetAttrs::mode(if dir { mode | 0o700 } else { mode & 0o666 });
        // An hour ago and more, to the microsecond: any file system keeps that.
        if self.rng.chance(50) {
            let past = 1_600_000_000_000_000 + i64::try_from(self.rng.below(1 << 46)).unwrap_or(0);
            attrs.mtime = SetTime::Client(past * 1000);
        }
        self.doing = format!("SETATTR {attrs:?} on node {node}");
        self.set_attr(node, attrs).await
    }

    async fn set_attr(&mut self, node: Nid, attrs: SetAttrs) -> Done {
        let fh = self.handle(node).await?;
        let reply = self.mutate(&Call::SetAttr { node: fh, attrs, guard: None }).await?;
        self.expect(&reply, &[status::OK])?;
        let mtime = match attrs.mtime {
            SetTime::Client(t) => Some(t),
            SetTime::Keep | SetTime::Server => None,
        };
        if attrs.mtime == SetTime::Server {
            self.tree.get_mut(node).mtime.loosen();
        }
        let change = Change::SetAttr { node, mode: attrs.mode, owner: None, size: attrs.size, mtime };
        self.record(&reply, change, Vec::new());
        self.see(node, "set", reply.wcc.after.as_ref())?;
        let times = self.mtime(node);
        self.log_mtimes(times);
        Ok(())
    }

    async fn op_rename_file(&mut self) -> Done {
        let Some((node, from, name)) = self.pick_name(|t, n| !t.is_dir(n)) else { return Ok(()) };
        let to = self.pick_dir();
        // Now and then over another file.
        let over = self.tree.entries(to).iter().find(|(_, n)| !self.tree.is_dir(**n)).map(|(name, _)| name.clone());
        let new = match over {
            Some(name) if self.rng.chance(25) => name,
            _ => self.fresh_name(to),
        };
        self.rename(node, from, name, to, new).await
    }

    async fn op_rename_dir(&mut self) -> Done {
        let Some((node, from, name)) = self.pick_name(|t, n| t.is_dir(n)) else { return Ok(()) };
        let to = self.pick_dir();
        if self.tree.is_within(to, node) {
            return Ok(());
        }
        let new = self.fresh_name(to);
        self.rename(node, from, name, to, new).await
    }

    async fn rename(&mut self, node: Nid, from: Nid, name: Bytes, to: Nid, new: Bytes) -> Done {
        let (shown, shown_new) = (name.escape_ascii().to_string(), new.escape_ascii().to_string());
        self.doing = format!("RENAME of node {node} from {from}/{shown:?} to {to}/{shown_new:?}");
        let (from_fh, to_fh) = (self.handle(from).await?, self.handle(to).await?);
        let call = Call::Rename { from: from_fh, name: name.clone(), to: to_fh, new: new.clone() };
        let reply = self.mutate(&call).await?;
        self.expect(&reply, &[status::OK])?;
        self.record(&reply, Change::Rename { from, name, to, new }, Vec::new());
        let mut times = self.see_dir(from, &reply.wcc.after)?;
        times.extend(self.see_dir(to, &reply.wcc2.after)?);
        self.log_mtimes(times);
        if self.rng.chance(50) {
            self.look(node).await?;
        }
        Ok(())
    }

    async fn op_link(&mut self) -> Done {
        let Some(node) = self.pick(|t, n| t.get(n).kind() == Kind::File && t.get(n).names.len() < 5) else {
            return Ok(());
        };
        let dir = self.pick_dir();
        let name = self.fresh_name(dir);
        self.doing = format!("LINK of node {node} as {:?} in {dir}", name.escape_ascii().to_string());
        let (fh, dir_fh) = (self.handle(node).await?, self.handle(dir).await?);
        let reply = self.mutate(&Call::Link { node: fh, dir: dir_fh, name: name.clone() }).await?;
        self.expect(&reply, &[status::OK])?;
        self.record(&reply, Change::Link { node, dir, name }, Vec::new());
        self.see(node, "linked", reply.attr.as_ref())?;
        let times = self.see_dir(dir, &reply.wcc.after)?;
        self.log_mtimes(times);
        Ok(())
    }

    async fn op_remove(&mut self) -> Done {
        let Some((node, dir, name)) = self.pick_name(|t, n| !t.is_dir(n)) else { return Ok(()) };
        self.doing = format!("REMOVE of {:?} (node {node}) in {dir}", name.escape_ascii().to_string());
        let known = self.tree.get(node).fh.clone();
        let fh = self.handle(dir).await?;
        let reply = self.mutate(&Call::Remove { dir: fh, name: name.clone() }).await?;
        self.removed(&reply, dir, name)?;
        self.gone(node, known).await
    }

    async fn op_rmdir(&mut self) -> Done {
        let Some((node, dir, name)) = self.pick_name(|t, n| t.is_dir(n)) else { return Ok(()) };
        self.doing = format!("RMDIR of {:?} (node {node}) in {dir}", name.escape_ascii().to_string());
        let known = self.tree.get(node).fh.clone();
        let empty = self.tree.entries(node).is_empty();
        let fh = self.handle(dir).await?;
        let reply = self.mutate(&Call::RmDir { dir: fh, name: name.clone() }).await?;
        if !empty {
            return self.expect(&reply, &[status::NOTEMPTY]);
        }
        self.removed(&reply, dir, name)?;
        self.gone(node, known).await
    }

    fn removed(&mut self, reply: &Reply, dir: Nid, name: Bytes) -> Done {
        self.expect(reply, &[status::OK])?;
        self.record(reply, Change::Remove { dir, name }, Vec::new());
        let times = self.see_dir(dir, &reply.wcc.after)?;
        self.log_mtimes(times);
        Ok(())
    }

    /// With its last name a node's handle goes stale.
    async fn gone(&mut self, node: Nid, known: Option<Bytes>) -> Done {
        let Some(fh) = known else { return Ok(()) };
        if self.tree.nodes.contains_key(&node) {
            return self.look(node).await;
        }
        self.doing = format!("GETATTR of node {node}, which is gone");
        let reply = self.ask(&Call::GetAttr { node: fh }).await?;
        self.expect(&reply, &[status::STALE])
    }

    async fn op_read(&mut self) -> Done {
        let Some(node) = self.pick(|t, n| matches!(t.get(n).kind(), Kind::File | Kind::Symlink)) else {
            return Ok(());
        };
        let fh = self.handle(node).await?;
        if let Body::Symlink { target } = &self.tree.get(node).body {
            let target = target.clone();
            self.doing = format!("READLINK of node {node}");
            let reply = self.ask(&Call::ReadLink { node: fh }).await?;
            self.expect(&reply, &[status::OK])?;
            if reply.data != target {
                return Err(self.mismatch(target.escape_ascii(), reply.data.escape_ascii()));
            }
            return self.see(node, "READLINK of", reply.attr.as_ref());
        }
        let size = self.size_of(node);
        let offset = self.rng.below(size + 2);
        let count = 1 + u32::try_from(self.rng.below(128 << 10)).unwrap_or(0);
        self.read(node, fh, offset, count).await
    }

    async fn read(&mut self, node: Nid, fh: Bytes, offset: u64, count: u32) -> Done {
        self.doing = format!("READ of {count} bytes at {offset} of node {node}");
        let reply = self.ask(&Call::Read { node: fh, offset, count }).await?;
        self.expect(&reply, &[status::OK])?;
        let Body::File { size, data } = &self.tree.get(node).body else { return Ok(()) };
        let due = u64::from(count).min(size.saturating_sub(offset));
        let eof = offset.saturating_add(due) >= *size;
        let got = reply.data.len() as u64;
        // A server may answer with fewer bytes, but then it is not the end.
        if got != u64::from(reply.count) || got > due || (got == 0 && due > 0) || (reply.eof != (eof && got == due)) {
            let got = format!("{got} bytes (count {}), eof {}", reply.count, reply.eof);
            return Err(self.mismatch(format_args!("{due} bytes, eof {eof}"), got));
        }
        let mut should = vec![0; reply.data.len()];
        data.read(offset, &mut should);
        if let Some(at) = should.iter().zip(reply.data.iter()).position(|(a, b)| a != b) {
            let (a, b) = (should[at], reply.data[at]);
            return Err(self.mismatch(format_args!("byte {a:#x} at {}", offset + at as u64), format_args!("{b:#x}")));
        }
        self.bytes_read += got;
        self.see(node, "READ of", reply.attr.as_ref())
    }

    async fn op_list(&mut self) -> Done {
        let dir = self.pick_dir();
        let plus = self.rng.chance(50);
        let room = 600 + u32::try_from(self.rng.below(30_000)).unwrap_or(0);
        self.doing = format!("{} of node {dir}, {room} bytes a page", if plus { "READDIRPLUS" } else { "READDIR" });
        let fh = self.handle(dir).await?;
        let mut seen: BTreeMap<Bytes, u64> = BTreeMap::new();
        let (mut cookie, mut verf) = (0, [0; 8]);
        loop {
            let dir_fh = fh.clone();
            let reply = if plus {
                self.ask(&Call::ReadDirPlus { dir: dir_fh, cookie, verf, dircount: room, maxcount: room }).await?
            } else {
                self.ask(&Call::ReadDir { dir: dir_fh, cookie, verf, count: room }).await?
            };
            self.expect(&reply, &[status::OK])?;
            self.see(dir, "listed", reply.wcc.after.as_ref())?;
            verf = reply.verf;
            if reply.entries.is_empty() && !reply.eof {
                return Err(self.mismatch("entries or the end", "an empty page"));
            }
            for entry in reply.entries {
                cookie = entry.cookie;
                if &entry.name[..] == b"." || &entry.name[..] == b".." {
                    continue;
                }
                let Some(nid) = self.tree.child(dir, &entry.name) else {
                    return Err(self.mismatch("no such name", entry.name.escape_ascii()));
                };
                self.see(nid, "listed", entry.attr.as_ref())?;
                self.learn_handle(nid, entry.fh)?;
                let known = *self.tree.get_mut(nid).fileid.get_or_insert(entry.fileid);
                if known != entry.fileid {
                    return Err(self.mismatch(format_args!("fileid {known}"), entry.fileid));
                }
                if seen.insert(entry.name.clone(), entry.fileid).is_some() {
                    return Err(self.mismatch("every name once", format_args!("{} twice", entry.name.escape_ascii())));
                }
            }
            if reply.eof {
                break;
            }
        }
        let due = self.tree.entries(dir);
        if due.len() != seen.len() {
            let missing = due.keys().find(|n| !seen.contains_key(*n)).map(|n| n.escape_ascii().to_string());
            return Err(
                self.mismatch(format_args!("{} names", due.len()), format_args!("{}, no {missing:?}", seen.len()))
            );
        }
        Ok(())
    }

    async fn op_look(&mut self) -> Done {
        let Some((node, dir, name)) = self.pick_name(|_, _| true) else { return Ok(()) };
        match self.rng.below(6) {
            0..3 => {
                self.doing = format!("LOOKUP of {:?} in node {dir}", name.escape_ascii().to_string());
                self.handle(dir).await?;
                self.lookup(dir, &name, node).await
            }
            3 => {
                self.doing = format!("ACCESS of node {node}");
                let fh = self.handle(node).await?;
                let reply = self.ask(&Call::Access { node: fh, mask: 0x1f }).await?;
                self.expect(&reply, &[status::OK])?;
                let due = u32::from(self.tree.get(node).mode & 0o400 != 0);
                if reply.access & 1 != due {
                    return Err(self.mismatch(format_args!("read access {due}"), reply.access));
                }
                self.see(node, "ACCESS of", reply.attr.as_ref())
            }
            4 => {
                self.doing = "FSSTAT, FSINFO, PATHCONF".into();
                let fh = self.handle(ROOT).await?;
                for call in
                    [Call::FsStat { node: fh.clone() }, Call::FsInfo { node: fh.clone() }, Call::PathConf { node: fh }]
                {
                    let reply = self.ask(&call).await?;
                    self.expect(&reply, &[status::OK])?;
                    self.see(ROOT, "root", reply.attr.as_ref())?;
                }
                Ok(())
            }
            _ => {
                self.doing = format!("GETATTR of node {node}");
                self.look(node).await
            }
        }
    }

    /// Calls that must be refused, and change nothing.
    async fn op_refused(&mut self) -> Done {
        let Some((node, dir, name)) = self.pick_name(|_, _| true) else { return Ok(()) };
        let dir_fh = self.handle(dir).await?;
        let is_dir = self.tree.is_dir(node);
        let attrs = SetAttrs::mode(0o600);
        let none = self.fresh_name(dir);
        let (call, due): (Call, &[u32]) = match self.rng.below(8) {
            0 => (Call::Lookup { dir: dir_fh, name: none }, &[status::NOENT]),
            1 => (Call::Create { dir: dir_fh, name, how: How::Guarded(attrs) }, &[status::EXIST]),
            2 => (Call::MkDir { dir: dir_fh, name, attrs }, &[status::EXIST]),
            3 => (Call::Remove { dir: dir_fh, name: none }, &[status::NOENT]),
            4 if is_dir => (Call::Remove { dir: dir_fh, name }, &[status::ISDIR, status::PERM]),
            4 => (Call::RmDir { dir: dir_fh, name }, &[status::NOTDIR]),
            5 => {
                let new = Bytes::from_static(b"x");
                (Call::Rename { from: dir_fh.clone(), name: none, to: dir_fh, new }, &[status::NOENT])
            }
            6 if is_dir => {
                let (to, new) = (self.handle(node).await?, Bytes::from_static(b"inside itself"));
                (Call::Rename { from: dir_fh, name, to, new }, &[status::INVAL])
            }
            6 => (Call::Symlink { dir: dir_fh, name, attrs, target: none }, &[status::EXIST]),
            _ => {
                let guard = Some(1);
                let node_fh = self.handle(node).await?;
                (Call::SetAttr { node: node_fh, attrs, guard }, &[status::NOT_SYNC])
            }
        };
        self.doing = format!("refusal of {} on {:?} in node {dir}", call.number(), call);
        let reply = self.mutate(&call).await?;
        self.expect(&reply, due)?;
        self.see(dir, "unchanged", if matches!(call, Call::SetAttr { .. }) { None } else { reply.wcc.after.as_ref() })
    }
}
