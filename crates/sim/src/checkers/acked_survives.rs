//! G2: what was acknowledged is there. The model is [`crate::oracle::Oracle`]; it is asked at every activation (against the
//! new active's whole disk) and at every read.
