export const peopleSample: {
  users: object[];
  tokens: object[];
  records: object[];
  state: object;
};
