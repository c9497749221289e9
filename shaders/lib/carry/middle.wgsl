// A segment of the keys between others: takes (max, sum, accumulator) over and leaves it.
const CARRY_IN: bool = true;
const CARRY_OUT: bool = true;
#bind read_write state
