mod disk;
mod lives;
mod machine;
mod opening;
mod plans;
mod snapshots;
