//! The root of a copy. It was there before the job, so nothing makes it as other directories are made; what clients make
//! in it inherits from it all the same.

use super::copy::{is_acl, put_xattrs, unreadable};
use crate::filer::{Changes, CoreFiler, NO_ACL, Result};

/// Give the root of `to` what that of `from` has: owner, mode, extended attributes and ACLs; ACLs of its own go. One that is
/// as it should be is not touched.
pub async fn put_root(from: &dyn CoreFiler, to: &dyn CoreFiler) -> Result<()> {
    let (source, copy) = (from.root().await?, to.root().await?);
    let (wanted, is) = (from.stat(&source).await.map_err(unreadable)?, to.stat(&copy).await?);
    let (uid, gid) = if to.capabilities().chown { (wanted.uid, wanted.gid) } else { (is.uid, is.gid) };
    let (xattrs, has) = (from.xattrs(&source).await.map_err(unreadable)?, to.xattrs(&copy).await?);
    let lacks: Vec<_> = xattrs.iter().filter(|xattr| !has.contains(xattr)).cloned().collect();
    let own = has.iter().map(|(name, _)| name).filter(|name| is_acl(name));
    let own: Vec<_> = own.filter(|name| !xattrs.iter().any(|(wanted, _)| wanted == *name)).collect();
    if (uid, gid, wanted.mode) == (is.uid, is.gid, is.mode) && lacks.is_empty() && own.is_empty() {
        return Ok(());
    }
    // Without its ACL the group bits are the mask: wider than what its groups may do.
    let shut = wanted.mode & !0o077;
    to.set(&copy, Changes { uid: Some(uid), gid: Some(gid), mode: Some(shut), ..Changes::default() }).await?;
    for name in own {
        to.set_xattr(&copy, name, &NO_ACL).await?;
    }
    put_xattrs(to, &copy, &lacks).await?;
    to.set(&copy, Changes { mode: Some(wanted.mode), ..Changes::default() }).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::filer::memory::Memory;
    use crate::filer::{AclKind, ErrorKind, memory};
    use crate::location::tests::named_user;

    const ACCESS: &[u8] = AclKind::Access.xattr().as_bytes();
    const DEFAULT: &[u8] = AclKind::Default.xattr().as_bytes();

    async fn with(xattrs: &[(&[u8], Vec<u8>)]) -> Memory {
        let filer = Memory::default();
        let root = filer.root().await.unwrap();
        for (name, value) in xattrs {
            filer.set_xattr(&root, name, value).await.unwrap();
        }
        filer
    }

    async fn shown(filer: &Memory) -> (u32, u32, u32, Vec<(Vec<u8>, Vec<u8>)>) {
        let root = filer.root().await.unwrap();
        let stat = filer.stat(&root).await.unwrap();
        (stat.mode, stat.uid, stat.gid, filer.xattrs(&root).await.unwrap())
    }

    #[tokio::test]
    async fn a_root_gets_owner_mode_attributes_and_acls_and_keeps_none_of_its_own() {
        let from = with(&[(ACCESS, named_user(7, 7)), (b"user.note", b"x".to_vec())]).await;
        let owner = Changes { uid: Some(5), gid: Some(6), ..Changes::default() };
        from.set(&from.root().await.unwrap(), owner).await.unwrap();
        let to = with(&[(ACCESS, named_user(1, 3)), (DEFAULT, named_user(7, 7))]).await;
        put_root(&from, &to).await.unwrap();
        assert_eq!(shown(&to).await, shown(&from).await);
        assert_eq!(shown(&to).await.3.len(), 2);
        let before = to.stat(&to.root().await.unwrap()).await.unwrap();
        put_root(&from, &to).await.unwrap();
        assert_eq!(to.stat(&to.root().await.unwrap()).await.unwrap(), before, "it is not touched again");
    }

    #[tokio::test]
    async fn attributes_that_cannot_be_read_are_the_root_s_own_trouble() {
        let from = with(&[]).await;
        from.damage(&from.root().await.unwrap()).unwrap();
        let said = put_root(&from, &Memory::default()).await;
        assert_eq!(said.unwrap_err().kind, ErrorKind::OfObject);
    }

    #[tokio::test]
    async fn an_acl_that_the_other_side_cannot_have_is_no_silence() {
        let from = with(&[(ACCESS, named_user(7, 7))]).await;
        let mut options = memory::Options::default();
        options.capabilities.acls = false;
        let said = put_root(&from, &Memory::new(options)).await;
        assert_eq!(said.unwrap_err().kind, ErrorKind::NotSupported);
    }
}
