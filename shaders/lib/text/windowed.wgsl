// Text keys join the softmax of every window, as if it stood at the window's corner: the rotary embedding sees only
// differences of positions, so that a query is turned by the corner instead, once for all keys of a kind.
#bind read text_k
#bind read text_v
#bind read turn
const TEXT: bool = true;
const TURNED: bool = true;
#import turn
