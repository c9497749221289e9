// The first of several segments of the keys: leaves (max, sum, accumulator) for the next.
const CARRY_IN: bool = false;
const CARRY_OUT: bool = true;
#bind read_write state
