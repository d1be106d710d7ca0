//! Sockets on the host's network, which the worker can make no more of: each is one question's at a
//! time, and comes back however that ends.

use std::cell::RefCell;
use std::ops::Deref;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What is lent out.
#[derive(Debug)]
pub struct Pool<T> {
    free: RefCell<Vec<T>>,
    permits: Semaphore,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Lent<'a, T> {
    pool: &'a Pool<T>,
    item: Option<T>,
    _permit: SemaphorePermit<'a>,
}

impl<T> Pool<T> {
    /// These.
    pub fn new(items: Vec<T>) -> Self {
        Self { permits: Semaphore::new(items.len()), free: RefCell::new(items) }
    }

    /// One of them, as soon as one is free.
    pub async fn lend(&self) -> Option<Lent<'_, T>> {
        let permit = self.permits.acquire().await.ok()?;
        let item = self.free.borrow_mut().pop();
        item.is_some().then_some(Lent { pool: self, item, _permit: permit })
    }
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // It is there until this is dropped.
        self.item.as_ref().unwrap_or_else(|| unreachable!())
    }
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        // Before its permit, which is a later field.
        self.pool.free.borrow_mut().extend(self.item.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[test]
    fn what_is_given_up_comes_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let pool = Pool::new(vec![1, 2]);
            for _ in 0..5 {
                // A question that is given up.
                let waits = async {
                    let _lent = pool.lend().await;
                    std::future::pending::<()>().await;
                };
                assert!(timeout(Duration::from_millis(1), waits).await.is_err());
            }
            let (one, two) = (pool.lend().await.unwrap(), pool.lend().await.unwrap());
            assert_eq!(*one + *two, 3);
            assert!(timeout(Duration::from_millis(1), pool.lend()).await.is_err());
            drop(one);
            assert!(pool.lend().await.is_some());
        });
    }
}
