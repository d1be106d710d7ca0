//! The CMOS RAM with the real-time clock of a PC. (Motorola MC146818A)
//!
//! The clock is the host's, in UTC, and cannot be set. There are no alarms and no interrupts.

use crate::chipset::bus::BusDevice;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const INDEX: u64 = 0;
const DATA: u64 = 1;

const STATUS_A: usize = 0xa;
const STATUS_B: usize = 0xb;
const STATUS_D: usize = 0xd;
/// The century, where most PCs have it.
const CENTURY: usize = 0x32;
/// CPUs besides the first. (SeaBIOS: CMOS_BIOS_SMP_COUNT)
const SMP_COUNT: usize = 0x5f;

/// A 32768 Hz crystal, and the rate that PCs begin with.
const A: u8 = 0x26;
/// 24 hours a day, in BCD.
const B: u8 = 2;
/// The battery is good.
const D: u8 = 0x80;

struct Cmos {
    index: usize,
    ram: [u8; 128],
}

/// The device, at ports 0x70 and 0x71.
pub struct Rtc {
    cmos: Mutex<Cmos>,
    cpus: u8,
}

impl Rtc {
    /// For a machine with `cpus` CPUs.
    pub fn new(cpus: u8) -> Self {
        let device = Self { cmos: Mutex::new(Cmos { index: 0, ram: [0; 128] }), cpus };
        device.reset();
        device
    }

    /// The machine's reset: as it was delivered.
    pub fn reset(&self) {
        let mut cmos = self.cmos();
        (cmos.index, cmos.ram) = (0, [0; 128]);
        cmos.ram[STATUS_A] = A;
        cmos.ram[STATUS_B] = B;
        cmos.ram[STATUS_D] = D;
        cmos.ram[SMP_COUNT] = self.cpus.saturating_sub(1);
    }

    /// The state that a hibernated machine keeps: the register selected, and the RAM. The clock is
    /// the host's.
    pub fn save(&self) -> (u8, Vec<u8>) {
        let cmos = self.cmos();
        (cmos.index as u8, cmos.ram.to_vec())
    }

    /// Takes over a saved state.
    pub fn restore(&self, (index, ram): (u8, Vec<u8>)) {
        let mut cmos = self.cmos();
        cmos.index = usize::from(index & 0x7f);
        cmos.ram.iter_mut().zip(ram).for_each(|(to, from)| *to = from);
    }

    fn cmos(&self) -> MutexGuard<'_, Cmos> {
        self.cmos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let (DATA, [byte]) = (offset, data) else { return };
        let cmos = self.cmos();
        let own = cmos.ram[cmos.index];
        *byte = match field(cmos.index) {
            Some(field) => Date::now().get(field).map_or(own, bcd),
            None => own,
        };
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let &[byte] = data else { return };
        let mut cmos = self.cmos();
        match offset {
            // The highest bit masks NMI, of which there are none.
            INDEX => cmos.index = usize::from(byte & 0x7f),
            DATA if matches!(cmos.index, STATUS_A..=STATUS_D) => {}
            DATA => {
                let index = cmos.index;
                cmos.ram[index] = byte;
            }
            _ => {}
        }
    }
}

fn bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

/// A part of the date.
#[derive(Clone, Copy)]
enum Field {
    Second,
    Minute,
    Hour,
    Weekday,
    Day,
    Month,
    Year,
    Century,
}

fn field(index: usize) -> Option<Field> {
    Some(match index {
        0 => Field::Second,
        2 => Field::Minute,
        4 => Field::Hour,
        6 => Field::Weekday,
        7 => Field::Day,
        8 => Field::Month,
        9 => Field::Year,
        CENTURY => Field::Century,
        _ => return None,
    })
}

/// A moment in UTC.
struct Date {
    seconds: u64,
}

impl Date {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs() }
    }

    /// `None` beyond the year 9999.
    fn get(&self, field: Field) -> Option<u8> {
        let (days, second) = (self.seconds / 86400, self.seconds % 86400);
        let (year, month, day) = civil(days);
        let value = match field {
            Field::Second => second % 60,
            Field::Minute => second / 60 % 60,
            Field::Hour => second / 3600,
            // Sunday is 1, and the epoch was a Thursday.
            Field::Weekday => (days + 4) % 7 + 1,
            Field::Day => day,
            Field::Month => month,
            Field::Year => year % 100,
            Field::Century => year / 100,
        };
        u8::try_from(value).ok().filter(|value| *value < 100)
    }
}

/// Year, month and day of a day since the epoch, in the Gregorian calendar.
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days)
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 1 March of the year 0
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153; // from March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rtc: &Rtc, index: u8) -> u8 {
        let mut byte = [0];
        rtc.write(INDEX, &[index]);
        rtc.read(DATA, &mut byte);
        byte[0]
    }

    fn date(seconds: u64) -> Vec<u8> {
        let date = Date { seconds };
        let fields = [9, 8, 7, 6, 4, 2, 0].map(field);
        fields.iter().map(|field| date.get(field.unwrap()).unwrap()).collect()
    }

    #[test]
    fn the_calendar_is_the_hosts() {
        // As date -u -d @SECONDS says.
        assert_eq!(date(0), [70, 1, 1, 5, 0, 0, 0]);
        assert_eq!(date(951_782_399), [0, 2, 28, 2, 23, 59, 59]);
        assert_eq!(date(951_827_696), [0, 2, 29, 3, 12, 34, 56]);
        assert_eq!(date(1_798_761_599), [26, 12, 31, 5, 23, 59, 59]);
        assert_eq!(Date { seconds: 1_798_761_599 }.get(Field::Century), Some(20));
        assert_eq!(bcd(59), 0x59);
    }

    #[test]
    fn registers_say_what_a_pc_has() {
        let rtc = Rtc::new(4);
        assert_eq!([0xa, 0xb, 0xd].map(|index| read(&rtc, index)), [0x26, 2, 0x80]);
        assert_eq!(read(&rtc, 0x5f), 3);
        assert_eq!(read(&rtc, 0x32 | 0x80), 0x20);
        let mut index = [0];
        rtc.read(INDEX, &mut index);
        assert_eq!(index, [0xff], "the index is write-only");
    }

    #[test]
    fn cmos_keeps_what_is_written_until_a_reset() {
        let rtc = Rtc::new(1);
        rtc.write(INDEX, &[0x0f]);
        rtc.write(DATA, &[0x12]);
        rtc.write(INDEX, &[0xb]);
        rtc.write(DATA, &[0xff]);
        assert_eq!((read(&rtc, 0x0f), read(&rtc, 0xb)), (0x12, 2));
        rtc.reset();
        assert_eq!(read(&rtc, 0x0f), 0);
    }

    #[test]
    fn odd_accesses_are_harmless() {
        let rtc = Rtc::new(1);
        for index in 0..=255 {
            read(&rtc, index);
        }
        for size in [1, 2, 4, 8] {
            for offset in 0..2 {
                rtc.write(offset, &vec![0xff; size]);
                rtc.read(offset, &mut vec![0; size]);
            }
        }
    }
}
